"""The denoising filters, measured: ``python -m bench.filters quality`` and ``python -m bench.filters speed``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench import filter_quality as quality
from bench.peers import keep_large_blocks
from voxelrt import environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a Markdown table; 1 where an answer is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.filters", description="Denoising filters, measured.")
    commands = parser.add_subparsers(dest="command", required=True)
    found = commands.add_parser("quality", help="known noise on real images: PSNR, SSIM, background")
    found.add_argument("--t1", type=Path, help="a T1 (default: the demo's MNI152 head, fetched)")
    found.add_argument("--ct", type=Path, help="a CT, or Cranium.inv3 of Debian's invesalius-examples")
    found.add_argument("--edge", type=int, default=96, help="the middle of the image, so many voxels along each axis")
    found.add_argument("--seed", type=int, default=0)
    timed = commands.add_parser("speed", help="against DIPY, SimpleITK, SciPy and scikit-image")
    timed.add_argument("--edge", type=int, default=128)
    timed.add_argument("--rounds", type=int, default=3)
    timed.add_argument("--rows", default="", help="only rows whose name holds this")
    timed.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    keep_large_blocks("bench.filters")
    return _quality(asked) if asked.command == "quality" else _speed(asked)


def _quality(asked: argparse.Namespace) -> int:
    images = [("T1", quality.t1(asked.t1), "rician")]
    if asked.ct is not None:
        images.append(("CT", quality.ct(asked.ct), "gaussian"))
    for name, whole, noise in images:
        clean = quality.middle(whole - min(0.0, float(whole.min())), asked.edge)
        peak = float(np.percentile(clean, 99.9) - np.percentile(clean, 0.1))
        for level in quality.LEVELS:
            print(f"\n#### {name}, {'×'.join(map(str, clean.shape))} voxels, {noise} noise of {level:.0%}\n")
            print("| filter | PSNR, dB | SSIM | background bias, sigmas |\n| --- | ---: | ---: | ---: |")
            for score in quality.scores(clean, level * peak, noise, asked.seed):
                print(f"| {score.filter} | {score.psnr_db:.2f} | {score.ssim:.4f} | {score.background_bias:+.3f} |")
            sys.stdout.flush()
    return 0


def _speed(asked: argparse.Namespace) -> int:
    from bench.filter_speed import SIGMA, check, measure, rows

    volume = (100 + np.random.default_rng(asked.seed).normal(0, SIGMA, (asked.edge,) * 3)).astype(np.float32)
    threads = environment.threads()
    failed = 0
    print(f"{asked.edge}³ float32, {threads} threads, {asked.rounds} rounds\n")
    print("| filter | ‖e‖/‖ref‖ | VoxelRT | peers | faster than the fastest: median (least) |")
    print("| --- | ---: | ---: | --- | ---: |")
    for row in rows(volume, threads):
        if asked.rows not in row.name:
            continue
        try:
            difference = check(row, volume)
        except AssertionError as error:
            failed = 1
            print(f"| {error} | | | | |")
            continue
        medians, least, middle = measure(row, asked.rounds)
        peers = ", ".join(f"{name} {medians[name] * 1e3:.4g} ms" for name in row.peers)
        ours = f"{medians['VoxelRT'] * 1e3:.4g} ms"
        print(f"| {row.name} | {difference:.1e} | {ours} | {peers} | {middle:.1f}× ({least:.1f}) |", flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
