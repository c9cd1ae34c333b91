"""Postures from keypoints: three graph networks whose nodes are the keypoints of a map.

B batch, K nodes, C features of a node, G attention heads. Graphs are dense: every example has
the same K nodes and the same edges, so a neighbourhood is a row of a K x K matrix.

Source: Yu et al. (see jaxbed.models.efd), Table 1 and the text around it; the layers are those
of Kipf and Welling, ICLR 2017, eq. 2 (GCN), Velickovic et al., ICLR 2018, eqs. 1 to 5 (GAT),
Hamilton, Ying and Leskovec, NeurIPS 2017, algorithm 1 with the mean (GraphSAGE), and the pooling
follows Li et al., ICLR 2016, eq. 7. Differs: `id_width` gives nodes an identity, see
GraphClassifier.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.layers import BatchNorm

Kind = Literal["gcn", "gat", "sage"]

Edges = tuple[tuple[int, int], ...]


def neighbourhoods(nodes: int, edges: Edges | None) -> np.ndarray:
    """Tells which nodes every node hears.

    Args:
        nodes: K.
        edges: pairs of nodes that hear each other; None: all hear all.

    Returns:
        bool[K,K], [t, s] for target and source, symmetric. Every node hears itself.

    Raises:
        ValueError: an edge leads to a node that does not exist.
    """
    if edges is None:
        return np.ones((nodes, nodes), bool)
    if any(not 0 <= node < nodes for edge in edges for node in edge):
        raise ValueError(f"edges must join nodes 0 to {nodes - 1}, got {edges}")
    heard = np.eye(nodes, dtype=bool)
    for a, b in edges:
        heard[a, b] = heard[b, a] = True
    return heard


class GCNLayer(nn.Module):
    """Averages neighbours, weighted by how many each of the two has: D^-1/2 A D^-1/2 X W + b.

    Attributes:
        features: output channels.
        dtype: compute type; None follows the input.
        param_dtype: storage type.
    """

    features: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, heard: np.ndarray) -> jax.Array:
        """Maps f32[B,K,C] and bool[K,K] to f32[B,K,features]."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = nn.Dense(self.features, use_bias=False, name="linear", **types)(x)
        degree = heard.sum(axis=1)
        weight = heard / np.sqrt(degree[:, None] * degree[None])
        y = jnp.einsum("ts,bsc->btc", jnp.asarray(weight, y.dtype), y)
        return y + _bias(self, self.features, y)


class GATLayer(nn.Module):
    """Weighs neighbours by attention: softmax_s of LeakyReLU(a_target h_t + a_source h_s).

    Attributes:
        features: output channels of each head.
        heads: G; their outputs are concatenated.
        dtype: compute type; None follows the input.
        param_dtype: storage type.
    """

    features: int
    heads: int = 1
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, heard: np.ndarray) -> jax.Array:
        """Maps f32[B,K,C] and bool[K,K] to f32[B,K,G*features]."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        channels = self.heads * self.features
        h = nn.Dense(channels, use_bias=False, name="linear", **types)(x)
        h = h.reshape(*x.shape[:2], self.heads, self.features)

        def score(name: str) -> jax.Array:
            init = nn.initializers.lecun_normal(in_axis=1, out_axis=0)
            vector = self.param(name, init, (self.heads, self.features), self.param_dtype)
            return jnp.einsum("bngc,gc->bng", h, vector.astype(h.dtype))

        target, source = score("attend_target"), score("attend_source")
        scores = nn.leaky_relu(target[:, :, None] + source[:, None], 0.2)  # [B,t,s,G]
        scores = jnp.where(heard[None, :, :, None], scores.astype(jnp.float32), -jnp.inf)
        attention = jax.nn.softmax(scores, axis=2).astype(h.dtype)
        y = jnp.einsum("btsg,bsgc->btgc", attention, h).reshape(*x.shape[:2], channels)
        return y + _bias(self, channels, y)


class SAGELayer(nn.Module):
    """Adds what a node is and what its neighbours are on average, each through a linear map.

    Attributes: as those of GCNLayer.
    """

    features: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, heard: np.ndarray | None) -> jax.Array:
        """Maps f32[B,K,C] and bool[K,K] to f32[B,K,features]; None: all hear all."""
        dense = partial(nn.Dense, self.features, dtype=self.dtype, param_dtype=self.param_dtype)
        if heard is None:
            mean = jnp.mean(x, axis=1, keepdims=True)
        else:
            weight = heard / heard.sum(axis=1, keepdims=True)
            mean = jnp.einsum("ts,bsc->btc", jnp.asarray(weight, x.dtype), x)
        return dense(name="neighbours")(mean) + dense(use_bias=False, name="itself")(x)


class GraphClassifier(nn.Module):
    """Four graph layers, attention pooling over the nodes, and a linear layer.

    Parameters with nodes of 19 features (an EFD keypoint: pressure, row, column and 16 pixel
    features) and of 3 (a supervised one: value, x, y):

        gcn       55,750     53,702
        gat      307,590    291,206
        sage     109,382    105,286

    On a complete graph a GCN gives every node the same output, that of their mean: it is a
    perceptron on the mean node, and which keypoint said what is lost in its first layer. No
    linear identity changes that. With `id_width` every node first passes one layer that adds a
    learned vector of its own before the ReLU.

    Attributes:
        kind: which layer.
        classes: postures.
        widths: output channels of the layers; of each head in GAT.
        heads: heads of the first layer of GAT; the others have one.
        gate_width: hidden channels of the pooling's gate.
        dropout: share of pooled features dropped in training.
        edges: pairs of nodes that hear each other; None: the complete graph. Every node hears
            itself.
        id_width: channels that nodes of learned identity start with; 0: none, as published.
        shortcut: on the complete graph, evaluate GCN on the mean node alone and average once
            for all nodes in GraphSAGE. Exact, in training too.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; the outputs are float32.
        param_dtype: storage type.
    """

    kind: Kind = "gcn"
    classes: int = 3
    widths: tuple[int, ...] = (128, 256, 64, 32)
    heads: int = 8
    gate_width: int = 16
    dropout: float = 0.5
    edges: Edges | None = None
    id_width: int = 0
    shortcut: bool = True
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Classifies graphs.

        Args:
            x: f32[B,K,C], for EFD `keypoints` and `keypoint_features` side by side.
            train: normalise with the batch's own statistics, update the running ones, and drop
                features with the `dropout` stream of random numbers.

        Returns:
            `logits` f32[B,classes] and `node_weights` f32[B,K], what each node counts in the
            pooling; they sum to 1.

        Raises:
            ValueError: another kind, or `edges` that do not fit.
        """
        nodes = x.shape[1]
        heard = neighbourhoods(nodes, self.edges)
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, **types)
        if self.id_width:
            x = nn.relu(self._identified(x))
        if self.shortcut and self.edges is None and self.kind == "gcn":
            x, heard = jnp.mean(x, axis=1, keepdims=True), heard[:1, :1]
        elif self.shortcut and self.edges is None and self.kind == "sage":
            heard = None
        for number, width in enumerate(self.widths, start=1):
            layer = _layer(self.kind, width, self.heads if number == 1 else 1)
            x = nn.relu(layer(name=f"layer{number}", **types)(x, heard))
            x = norm(name=f"layer{number}_norm")(x)

        weights = self._gate(x, norm)
        pooled = jnp.sum(weights.astype(x.dtype) * x, axis=1)
        pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)
        logits = nn.Dense(self.classes, name="output", **types)(pooled)
        # The mean node stands for all of them, which count alike.
        every = jnp.broadcast_to(weights[..., 0], (len(x), nodes)) * (x.shape[1] / nodes)
        return {"logits": logits.astype(jnp.float32), "node_weights": every}

    def _identified(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,K,C] linearly to f32[B,K,id_width] and adds to every node its identity."""
        dense = nn.Dense(
            self.id_width,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="lift",
        )
        shape = (x.shape[1], self.id_width)
        identity = self.param("identity", nn.initializers.normal(1.0), shape, self.param_dtype)
        y = dense(x)
        return y + identity[None].astype(y.dtype)

    def _gate(self, x: jax.Array, norm) -> jax.Array:
        """Weighs the nodes of f32[B,K,C]: f32[B,K,1], summing to 1 over the nodes."""
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype)
        gate = nn.relu(norm(name="gate_norm1")(dense(self.gate_width, name="gate1")(x)))
        gate = nn.relu(norm(name="gate_norm2")(dense(1, name="gate2")(gate)))
        return jax.nn.softmax(gate.astype(jnp.float32), axis=1)


GCN = partial(GraphClassifier, "gcn")
GAT = partial(GraphClassifier, "gat")
GraphSAGE = partial(GraphClassifier, "sage")


def _layer(kind: Kind, width: int, heads: int) -> partial:
    """Chooses a layer that still wants its name and types."""
    if kind == "gcn":
        return partial(GCNLayer, width)
    if kind == "gat":
        return partial(GATLayer, width, heads)
    if kind == "sage":
        return partial(SAGELayer, width)
    raise ValueError(f"kind must be 'gcn', 'gat' or 'sage', got {kind!r}")


def _bias(layer: GCNLayer | GATLayer, channels: int, y: jax.Array) -> jax.Array:
    """Returns f32[1,1,channels], which is added after the neighbours are, not before."""
    bias = layer.param("bias", nn.initializers.zeros, (channels,), layer.param_dtype)
    return bias.reshape(1, 1, -1).astype(y.dtype)
