"""One whole case by one program, in a process of its own: ``python -m bench.case_worker PROGRAM JSON``.

Prints a line of JSON: seconds of each stage and the most memory the process held. Loading the model is not timed
(ours comes compiled, nnU-Net's from its checkpoint); reading the case and writing the labels are.
"""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.case_data import quiet_nnunet
from bench.worker import peak_bytes


def voxelrt(*, plan: str, case: str, out: str, threads: int, memory: str | None = None) -> dict[str, float]:
    """Our own pipeline; what is neither reading, preprocessing nor the network is export."""
    import voxelrt as vx

    opened = vx.Plan.open(plan, threads=threads)
    network, run = [0.0], opened.run

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        answer = run(*arguments, **options)
        network[0] += time.perf_counter() - start
        return answer

    opened.run = timed  # type: ignore[method-assign]
    predict = vx.predict  # brings its imports, as nnU-Net's are done
    start = time.perf_counter()
    result = predict(opened, case, out, mirroring=False, memory=memory)
    total = time.perf_counter() - start
    before = result.timings["read"] + result.timings["preprocess"]
    return {"preprocess": before, "network": network[0], "export": total - before - network[0], "total": total}


def nnunet(*, folder: str, case: str, out: str, threads: int, wide: bool = False) -> dict[str, float]:
    """nnU-Net's predictor, or the same with its sums in float32, on the CPU."""
    quiet_nnunet()
    import nnunetv2.inference.predict_from_raw_data as stock
    import torch

    torch.set_num_threads(threads)
    spent = {"preprocess": 0.0, "network": 0.0, "export": 0.0}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            answer = function(*arguments, **options)
            spent[name] += time.perf_counter() - start
            return answer

        return call

    kind = _wide(stock) if wide else stock.nnUNetPredictor
    predictor = kind(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    training = next(Path(folder).iterdir())
    predictor.initialize_from_trained_model_folder(str(training), None, "checkpoint_final.pth")
    predictor.predict_logits_from_preprocessed_data = timed("network", predictor.predict_logits_from_preprocessed_data)
    stock.export_prediction_from_logits = timed("export", stock.export_prediction_from_logits)
    start = time.perf_counter()
    predictor.predict_from_files_sequential([[case]], [out.removesuffix(".nii.gz")], overwrite=True)
    total = time.perf_counter() - start
    spent["preprocess"] = total - spent["network"] - spent["export"]
    return {**spent, "total": total}


def _wide(stock: Any) -> type:
    """The predictor with its two accumulators in float32."""
    name = "_internal_predict_sliding_window_return_logits"
    source = textwrap.dedent(inspect.getsource(getattr(stock.nnUNetPredictor, name)))
    scope = dict(vars(stock))
    exec(source.replace("torch.half", "torch.float32"), scope)
    return type("Wide", (stock.nnUNetPredictor,), {name: scope[name]})


PROGRAMS = {"voxelrt": voxelrt, "nnunet": nnunet}


def main() -> None:
    sys.stdout, kept = sys.stderr, sys.stdout  # what libraries print is no answer
    answer = PROGRAMS[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps({"seconds": answer, "peak_bytes": peak_bytes()}), file=kept)


if __name__ == "__main__":
    main()
