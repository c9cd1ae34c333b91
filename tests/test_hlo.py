"""Names of compiled operations, on programs written by hand and on one that XLA compiled."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxbed.efficiency import hlo

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%region (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0), metadata={op_name="reduce_sum"}
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inside (p: f32[8,4]) -> f32[4,8] {
  %p = f32[8,4]{1,0} parameter(0)
  %scaled = f32[8,4]{1,0} multiply(%p, %p), metadata={op_name="jit(step)/jvp(Net)/norm/mul" id=1}
  ROOT %turned = f32[4,8]{1,0} transpose(%scaled), dimensions={1,0}
}

ENTRY %main (x: f32[8,4], w: f32[4]) -> (f32[4], f32[4,8]) {
  %x = f32[8,4]{1,0} parameter(0), metadata={op_name="x"}
  %w = f32[4]{0} parameter(1), metadata={op_name="params['w']"}
  %fusion.1 = f32[4,8]{1,0} fusion(/*index=5*/%x), kind=kLoop, calls=%inside
  %layout = f32[4]{0} copy(%w)
  %conv = (f32[], f32[4]{T(8)}) convolution(%fusion.1, %layout), metadata={op_name="Net/head/conv"}
  %first = f32[4]{0} get-tuple-element(%conv), index=0
  %view = f32[4]{0} bitcast(%first)
  %back = f32[4]{0} copy(%view)
  %new = f32[4]{0} add(%back, %w), metadata={op_name="jit(step)/add"}
  %lonely = f32[4]{0} copy(%nothing)
  ROOT %out = (f32[4]{0}, f32[4,8]{1,0}) tuple(%new, %fusion.1)
}
"""


def test_a_fusion_without_a_name_has_that_of_what_is_in_it():
    assert hlo.op_names(PROGRAM)["fusion.1"] == "jit(step)/jvp(Net)/norm/mul"


def test_a_copy_has_the_name_of_what_it_is_made_for():
    names = hlo.op_names(PROGRAM)
    assert names["layout"] == "Net/head/conv"
    # The optimiser takes this one up, but the module whose gradient it is made it.
    assert names["back"] == "Net/head/conv"
    assert names["new"] == "jit(step)/add"
    assert names["lonely"] == ""


def test_the_users_of_a_convolution_are_seen_through_views():
    assert hlo.convolutions(PROGRAM) == {"conv": {"back"}}


@pytest.mark.parametrize(
    ("op_name", "module"),
    [
        ("jit(step)/transpose(jvp(Net))/stage1/Conv_0/mul", "Net/stage1/Conv_0"),
        ("jit(step)/add", ""),
        ("", ""),
        ("params['w']", ""),
        ("jit(step)/jvp(Net)/up/jit(_resize)/dot_general", "Net/up"),
        ("jit(step)/jvp(Net)/fuser/bhwk,bhwc->bkc/dot_general", "Net/fuser"),
        ("jit(step)/jvp(Net)/rnn/while/body/closed_call/cell/tanh", "Net/rnn/cell"),
        ("jit(step)/Net/gate/cond/branch_1_fun/Dense_0/dot_general", "Net/gate/Dense_0"),
        ("jit(step)/Net/body/mul", "Net/body"),
        ("mul;jit(step)/jvp(Net)/head/add", ""),
        ("jit(step)/jvp(Net)/head/add;jit(step)/jvp(Net)/tail/mul", "Net/head"),
        ("jit(step)/jvp(Net)/block/(a/reduce_sum:b/c/reduce_sum)", "Net/block"),
    ],
)
def test_a_name_stack_becomes_a_module_path(op_name: str, module: str):
    assert hlo.module_of(op_name) == module


def test_all_that_a_compiled_gradient_executes_has_a_name():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(8, (3, 3), name="first")(x))
            return nn.Dense(3, name="last")(jnp.mean(x, axis=(1, 2)))

    net, x = Net(), jnp.ones((2, 16, 16, 4))
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    step = jax.jit(jax.grad(lambda p, x: jnp.sum(net.apply(p, x) ** 2)))
    text = step.lower(params, x).compile().as_text()
    names = hlo.op_names(text)
    entry = text[text.index("\nENTRY") :]
    executed = [
        name for name in names if f"%{name} = " in entry and ("fusion" in name or "conv" in name)
    ]
    assert executed
    assert all(names[name] for name in executed)
    assert {hlo.module_of(names[name]) for name in executed} >= {"Net/first", "Net/last"}
