"""What a graph must be: ONNX, checked by onnx.checker, and a little more."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from voxelrt.errors import ModelError, UnsupportedError
from voxelrt.graph.structure import structure

OUR_DOMAIN = "voxelrt"
ONNX_DOMAINS = ("", "ai.onnx")
KNOWN_DOMAINS = (*ONNX_DOMAINS, "ai.onnx.ml", OUR_DOMAIN)
OLDEST_OPSET, NEWEST_OPSET = 13, int(onnx.defs.onnx_opset_version())


def opset_of(model: ir.Model) -> int:
    """The version of the ONNX operator set that the model uses."""
    return max((model.opset_imports[d] for d in ONNX_DOMAINS if d in model.opset_imports), default=NEWEST_OPSET)


def label(node: ir.Node, reason: str) -> str:
    """The line of a node in an error: ``name (op): reason``."""
    operator = f"{node.domain}.{node.op_type}" if node.domain not in ONNX_DOMAINS else node.op_type
    return f"{node.name or 'unnamed'} ({operator}): {reason}"


def verify(model: ir.Model) -> None:
    """Check that a model is sound.

    Every node and value has a name that is its own, values are defined once and before they are used, every operator is
    known in its version, and onnx.checker with full shape inference agrees.

    Raises
    ------
    ModelError : the model is malformed; says where.
    UnsupportedError : operators of unknown domains, or unknown operators; all of them are listed.
    """
    _check_operators(model)
    _check_names(model)
    _check_order(model.graph, set())
    try:
        onnx.checker.check_model(structure(model), full_check=not lenient(model))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(f"the model is not valid ONNX: {first_line(error)}") from error


def lenient(model: ir.Model) -> bool:
    """Whether strict shape inference cannot be asked of the model.

    It would judge branches that are never taken. It refuses one-element vectors where Range asks for scalars, which all
    runtimes take and the ONNX library's own function bodies use. And its function body of MeanVarianceNormalization 13
    is broken (a Constant without a value).
    """
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(
        node.op_type in ("MeanVarianceNormalization", "Range")
        or any(a.type in graphs for a in node.attributes.values())
        for node in model.graph
    )


def first_line(error: BaseException) -> str:
    """What an exception of the ONNX library says, without the dump of the node behind it."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines)[:500] if lines else type(error).__name__


def _check_operators(model: ir.Model) -> None:
    refused = []
    for node in model.graph.all_nodes():
        if node.domain not in KNOWN_DOMAINS:
            refused.append(label(node, f"the operator domain {node.domain!r} is not known"))
        elif node.domain != OUR_DOMAIN:
            version = opset_of(model) if node.domain in ONNX_DOMAINS else model.opset_imports.get(node.domain, 1)
            domain = "" if node.domain in ONNX_DOMAINS else node.domain
            try:
                schema = onnx.defs.get_schema(node.op_type, version, domain)
            except onnx.defs.SchemaError:
                refused.append(label(node, f"there is no such operator in version {version} of the operator set"))
                continue
            if schema.deprecated:
                refused.append(label(node, f"the operator is gone since version {schema.since_version}"))
    if refused:
        raise UnsupportedError(f"{len(refused)} nodes of the model are of operators that are not known:", refused)


def _check_names(model: ir.Model) -> None:
    seen: set[str] = set()
    for node in model.graph.all_nodes():
        if not node.name:
            raise ModelError(f"a node ({node.op_type}) has no name")
        if node.name in seen:
            raise ModelError(f"the node name {node.name!r} is used twice")
        seen.add(node.name)


def _check_order(graph: ir.Graph, outer: set[ir.Value]) -> None:
    """Values of the graph are named, defined once, and before they are used."""
    known = set(outer)
    names: set[str] = set()

    def define(value: ir.Value) -> None:
        if not value.name:
            raise ModelError(f"a value of the graph {graph.name!r} has no name")
        if value.name in names:
            raise ModelError(f"the value {value.name!r} is defined twice")
        names.add(value.name)
        known.add(value)

    for value in graph.inputs:
        define(value)
    for value in graph.initializers.values():
        if value not in known:
            define(value)
    for node in graph:
        for source in node.inputs:
            if source is not None and source not in known:
                raise ModelError(
                    f"node {node.name!r} ({node.op_type}) reads {source.name!r} before anything defines it"
                )
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _check_order(attribute.as_graph(), known)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    _check_order(inner, known)
        for result in node.outputs:
            if result.name:
                define(result)
    for value in graph.outputs:
        if value not in known:
            raise ModelError(f"nothing in the graph makes its output {value.name!r}")
