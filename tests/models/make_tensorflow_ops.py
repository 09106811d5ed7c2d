"""Make ``data/tensorflow_ops.npz.xz``: small TensorFlow graphs, one for each op, with TensorFlow's answers.

Run once, in an environment of its own with ``tensorflow-cpu``: ``python tests/models/make_tensorflow_ops.py``.
Keys: ``CASE|graph`` (the serialised GraphDef), ``CASE|in|NAME`` and ``CASE|out|NAME``.
"""

from __future__ import annotations

import io
import itertools
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

TARGET = Path(__file__).parent / "data" / "tensorflow_ops.npz.xz"
RNG = np.random.default_rng(20260101)
CASES: dict[str, Callable[[], object]] = {}


def data(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def x_of(*shape: int | None) -> tf.Tensor:
    return tf.placeholder(tf.float32, shape, name="x")


def case(name: str, shape: tuple[int, ...], build: Callable[[tf.Tensor], tf.Tensor], open_batch: bool = False) -> None:
    """Register a graph from one input to one output."""
    assert name not in CASES
    CASES[name] = (shape, build, open_batch)


def volumes() -> None:
    for padding, stride, kernel, extent in itertools.product(("SAME", "VALID"), (1, 2), (1, 2, 3), (6, 7)):
        if kernel == 1 and stride == 1 and extent == 7:
            continue
        w = data(kernel, kernel, kernel, 2, 3)
        case(
            f"conv3d_{padding}_s{stride}_k{kernel}_n{extent}",
            (1, extent, extent + 1, extent, 2),
            lambda x, w=w, s=stride, p=padding: tf.nn.conv3d(x, w, [1, s, s, s, 1], p),
        )
    w = data(3, 3, 3, 2, 3)
    case("conv3d_dilated", (1, 9, 8, 9, 2), lambda x: tf.nn.conv3d(x, w, [1] * 5, "SAME", dilations=[1, 2, 1, 2, 1]))
    case("conv3d_open_batch", (2, 5, 6, 7, 2), lambda x: tf.nn.conv3d(x, w, [1] * 5, "SAME"), True)
    for padding, stride, kernel in itertools.product(("SAME", "VALID"), (1, 2, 3), (1, 2, 3, 4)):
        extent = 4
        sizes = (
            {extent * stride, extent * stride - stride + 1} if padding == "SAME" else {(extent - 1) * stride + kernel}
        )
        for size in sorted(sizes):
            v = data(kernel, kernel, kernel, 3, 2)
            case(
                f"deconv3d_{padding}_s{stride}_k{kernel}_n{size}",
                (1, extent, extent, extent, 2),
                lambda x, v=v, s=stride, p=padding, n=size: tf.nn.conv3d_transpose(
                    x, v, [1, n, n, n, 3], [1, s, s, s, 1], p
                ),
            )
    v = data(3, 3, 3, 4, 2)

    def by_shape(x: tf.Tensor) -> tf.Tensor:
        s = tf.shape(x)
        return tf.nn.conv3d_transpose(x, v, tf.stack([s[0], s[1] * 2, s[2] * 2, s[3] * 2, 4]), [1, 2, 2, 2, 1], "SAME")

    case("deconv3d_by_shape", (2, 3, 4, 5, 2), by_shape, True)
    for kind, padding, size, stride in itertools.product(("MAX", "AVG"), ("SAME", "VALID"), (2, 3), (1, 2)):
        case(
            f"pool3d_{kind}_{padding}_k{size}_s{stride}",
            (1, 5, 6, 7, 2),
            lambda x, k=kind, p=padding, z=size, s=stride: tf.nn.pool(x, [z] * 3, k, padding=p, strides=[s] * 3),
        )


def images() -> None:
    w, d, v = data(3, 3, 2, 4), data(3, 3, 2, 2), data(3, 3, 4, 2)
    for padding, stride in itertools.product(("SAME", "VALID"), (1, 2)):
        case(
            f"conv2d_{padding}_s{stride}",
            (2, 8, 9, 2),
            lambda x, s=stride, p=padding: tf.nn.conv2d(x, w, [1, s, s, 1], p),
        )
        case(
            f"depthwise_{padding}_s{stride}",
            (2, 8, 9, 2),
            lambda x, s=stride, p=padding: tf.nn.depthwise_conv2d_native(x, d, [1, s, s, 1], p),
        )
        case(
            f"pool2d_{padding}_s{stride}",
            (2, 8, 9, 2),
            lambda x, s=stride, p=padding: tf.nn.max_pool2d(x, 3, s, p) - tf.nn.avg_pool2d(x, 3, s, p),
        )
    case("conv2d_explicit", (1, 8, 9, 2), lambda x: tf.nn.conv2d(x, w, [1, 2, 1, 1], [[0, 0], [2, 1], [0, 1], [0, 0]]))
    case("conv2d_dilated", (1, 8, 9, 2), lambda x: tf.nn.conv2d(x, w, [1] * 4, "SAME", dilations=[1, 2, 3, 1]))
    case("deconv2d", (1, 5, 5, 2), lambda x: tf.nn.conv2d_transpose(x, v, [1, 10, 9, 4], [1, 2, 2, 1], "SAME"))
    case("bias", (1, 5, 5, 2), lambda x: tf.nn.bias_add(tf.nn.conv2d(x, w, [1] * 4, "SAME"), data(4)))

    def twice_read(x: tf.Tensor) -> tf.Tensor:
        y = tf.nn.conv2d(x, w, [1] * 4, "SAME")
        return tf.nn.bias_add(y, np.array([1, 2, 3, 4], np.float32)) * y

    case("bias_on_a_value_read_twice", (1, 5, 5, 2), twice_read)
    parameters = [np.abs(data(4)) + 0.5 for _ in range(4)]

    def batch_norm(x: tf.Tensor) -> tf.Tensor:
        y = tf.nn.conv2d(x, w, [1] * 4, "SAME")
        return tf.nn.fused_batch_norm(y, *parameters, epsilon=1e-3, is_training=False)[0]

    case("batch_norm", (2, 5, 6, 2), batch_norm)


def elements() -> None:
    unary = {
        "relu": tf.nn.relu,
        "relu6": lambda x: tf.nn.relu6(x * 5),
        "leaky": lambda x: tf.nn.leaky_relu(x, 0.15),
        "elu": tf.nn.elu,
        "sigmoid": tf.sigmoid,
        "tanh": tf.tanh,
        "softplus": tf.nn.softplus,
        "softmax": tf.nn.softmax,
        "exp": tf.exp,
        "rsqrt": lambda x: tf.math.rsqrt(tf.square(x) + 0.5),
        "identity": tf.identity,
        "cast": lambda x: tf.cast(tf.cast(x * 3, tf.int32), tf.float32),
    }
    w = data(1, 1, 1, 3, 3)
    for name, function in unary.items():
        # Behind a convolution, so that the value is stored channels-first when the op meets it.
        case(name, (1, 2, 3, 4, 3), lambda x, f=function: f(tf.nn.conv3d(x, w, [1] * 5, "SAME")))
    binary = {
        "add": tf.add,
        "sub": tf.subtract,
        "mul": tf.multiply,
        "div": lambda a, b: a / (b * b + 1.0),
        "maximum": tf.maximum,
        "minimum": tf.minimum,
        "squared_difference": tf.math.squared_difference,
    }
    for name, function in binary.items():
        for label, shape in {"scalar": (), "channel": (3,), "plane": (4, 3), "full": (1, 2, 3, 4, 3)}.items():
            c = data(*shape) if shape else np.float32(0.7)
            case(
                f"{name}_{label}",
                (1, 2, 3, 4, 3),
                lambda x, f=function, c=c: f(tf.nn.conv3d(x, w, [1] * 5, "SAME"), tf.constant(c)),
            )
        case(f"{name}_of_two", (1, 2, 3, 4, 3), lambda x, f=function: f(tf.nn.conv3d(x, w, [1] * 5, "SAME"), x))
    case("lower_rank_at_run_time", (1, 2, 3, 4, 3), lambda x: tf.nn.conv3d(x, w, [1] * 5, "SAME") + x[0, 0, 0])
    case("greater", (2, 5, 3), lambda x: tf.cast(tf.greater(x, 0.2), tf.float32))


def moves() -> None:
    w = data(1, 1, 3, 3)

    def conv(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(x, w, [1] * 4, "SAME")

    shape = (2, 4, 5, 3)
    case("concat_channels", shape, lambda x: tf.concat([conv(x), x, tf.zeros([2, 4, 5, 1])], -1))
    case("concat_rows", shape, lambda x: tf.concat([conv(x), conv(x)], 1))
    case("flatten_dense", shape, lambda x: tf.matmul(tf.reshape(conv(x), [-1, 60]), data(60, 4)), True)
    case("dense_transposed", (3, 6), lambda x: tf.matmul(x, data(4, 6), transpose_b=True))
    case("pad", shape, lambda x: tf.pad(conv(x), [[0, 0], [1, 2], [3, 0], [0, 1]]))
    case("pad_value", shape, lambda x: tf.pad(conv(x), [[0, 0], [1, 2], [3, 0], [0, 1]], constant_values=2.5))
    case("pad_reflect", shape, lambda x: tf.pad(conv(x), [[0, 0], [1, 2], [3, 0], [0, 0]], "REFLECT"))
    case("global_mean", shape, lambda x: tf.reduce_mean(conv(x), [1, 2]))
    case("mean_keep", shape, lambda x: conv(x) - tf.reduce_mean(conv(x), [1, 2], keepdims=True))
    case("mean_rows", shape, lambda x: tf.reduce_mean(conv(x), 1))
    case("sum_channels", shape, lambda x: tf.reduce_sum(conv(x), -1))
    case("max_all", shape, lambda x: tf.reduce_max(conv(x), [0, 1, 2, 3], keepdims=True))
    case("squeeze", (2, 1, 5, 3), lambda x: tf.squeeze(conv(x), [1]))
    case("squeeze_all", (1, 1, 5, 3), lambda x: tf.squeeze(conv(x)))
    case("expand", shape, lambda x: tf.expand_dims(conv(x), 2))
    case("transpose", shape, lambda x: tf.transpose(conv(x), [3, 1, 0, 2]))
    case("transpose_and_add", shape, lambda x: tf.transpose(conv(x), [0, 2, 1, 3]) + data(5, 4, 3))
    case("slice", shape, lambda x: conv(x)[:, 1:-1, ::2, 1])
    case("slice_backward", shape, lambda x: conv(x)[:, ::-1, -2:, :])
    case("pack", shape, lambda x: tf.stack([conv(x), x], 1))
    case("reshape_by_shape", shape, lambda x: tf.reshape(conv(x), [tf.shape(x)[0], -1, 3]), True)
    case("softmax_rows", (3, 7), tf.nn.softmax)
    case("argmax", shape, lambda x: tf.cast(tf.argmax(conv(x), -1), tf.float32))
    case("fill", shape, lambda x: conv(x) * tf.fill([4, 5, 1], 3.0))


def with_dropout(x: tf.Tensor) -> tf.Tensor:
    """tf.layers' dropout as it was before TensorFlow 2: a cond on a placeholder that is True by default."""
    training = tf.placeholder_with_default(True, [], name="training")
    return tf.cond(training, lambda: tf.nn.dropout(x, rate=0.5) * 7.0, lambda: tf.identity(x)) + 1.0


def channels_first(x: tf.Tensor) -> tf.Tensor:
    """The channels-last twin of :func:`channels_first_graph`: TensorFlow has no channels-first kernels for a CPU."""
    y = tf.nn.conv3d(tf.transpose(x, [0, 2, 3, 4, 1]), FIRST_W, [1, 2, 2, 2, 1], "SAME")
    y = tf.nn.max_pool3d(tf.nn.bias_add(y, FIRST_B), 2, 1, "SAME")
    y = tf.nn.conv3d_transpose(y, FIRST_V, [1, 6, 7, 8, 2], [1, 2, 2, 2, 1], "SAME")
    return tf.transpose(y, [0, 4, 1, 2, 3])


def channels_first_graph(x: tf.Tensor) -> tf.Tensor:
    form = {"data_format": "NCDHW"}
    y = tf.nn.conv3d(x, FIRST_W, [1, 1, 2, 2, 2], "SAME", **form)
    y = tf.nn.max_pool3d(tf.nn.bias_add(y, FIRST_B, data_format="NCDHW"), 2, 1, "SAME", **form)
    return tf.nn.conv3d_transpose(y, FIRST_V, [1, 2, 6, 7, 8], [1, 1, 2, 2, 2], "SAME", **form)


FIRST_W, FIRST_B, FIRST_V = data(3, 3, 3, 2, 4), data(4), data(3, 3, 3, 2, 4)


def graph_of(build: Callable[[tf.Tensor], tf.Tensor], shape: tuple[int | None, ...]) -> tf.Graph:
    tf.disable_control_flow_v2()  # the Switch and Merge of TensorFlow 1
    graph = tf.Graph()
    with graph.as_default():
        tf.identity(build(x_of(*shape)), name="y")
    return graph


def main() -> None:
    volumes()
    images()
    elements()
    moves()
    case("dropout", (2, 5), with_dropout)
    case("channels_first", (1, 2, 6, 7, 8), channels_first)
    stored: dict[str, np.ndarray] = {}
    for name, (shape, build, open_batch) in CASES.items():
        value = data(*shape)
        graph = graph_of(build, (None, *shape[1:]) if open_batch else shape)
        feed = {"x:0": value} | ({"training:0": False} if build is with_dropout else {})
        with tf.Session(graph=graph) as session:
            stored[f"{name}|out|y"] = session.run("y:0", feed)
        if build is channels_first:
            graph = graph_of(channels_first_graph, shape)
        stored[f"{name}|in|x"] = value
        stored[f"{name}|graph"] = np.frombuffer(graph.as_graph_def().SerializeToString(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **stored)
    TARGET.parent.mkdir(exist_ok=True)
    # The graphs are much alike: one compression over all of them halves the size.
    TARGET.write_bytes(lzma.compress(buffer.getvalue(), preset=9))
    print(TARGET, len(CASES), TARGET.stat().st_size)


if __name__ == "__main__":
    tf.disable_eager_execution()
    main()
