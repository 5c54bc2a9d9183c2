"""What each kind of module says of its parameters."""

from __future__ import annotations

import torch
from torch import nn

from icm.optim.groups import groups
from icm.optim.layout import Layout
from tests.optim.models import ConvNet, placed, roles


def test_convolutions_by_their_groups() -> None:
    found = placed(groups(ConvNet()))
    assert found["stem.weight"][:2] == ("convolutions", Layout("convolution"))
    assert found["grouped.weight"][1] == Layout("convolution", groups=2)
    assert found["multiplied.weight"][1] == Layout("convolution", groups=8)  # 8 matrices 2 × 9
    assert found["up.weight"][1] == Layout("transposed-convolution")
    assert found["depthwise.weight"] == ("vectors", None, "Conv2d: 1 × 9, a vector")
    assert found["squeeze.weight"] == ("vectors", None, "Linear: 1 × 4, a vector")
    assert found["activation.weight"][0] == "vectors"
    assert {found[f"{name}.{key}"][0] for name in ("norm", "groupnorm") for key in ("weight", "bias")} == {"norms"}
    assert "heads" not in {role for role, _, _ in found.values()}  # the last layer is a convolution
    assert placed(groups(ConvNet(), heads="out"))["out.bias"] == ("heads", None, "declared: heads='out'")
    whole = placed(groups(ConvNet(), matrices="depthwise"))["depthwise.weight"]
    assert whole[:2] == ("convolutions", Layout("convolution", groups=8))


def test_recurrent_layers_and_other_known_ones() -> None:
    lstm = placed(groups(nn.LSTM(4, 6, proj_size=3)))
    assert lstm["weight_ih_l0"][:2] == ("fused", Layout(parts=(6, 6, 6, 6)))
    assert lstm["weight_hr_l0"][0] == "matrices"
    assert lstm["bias_hh_l0"][0] == "biases"
    assert placed(groups(nn.GRUCell(4, 6)))["weight_hh"][1] == Layout(parts=(6, 6, 6))
    assert placed(groups(nn.RNN(4, 6)))["weight_hh_l0"][:2] == ("matrices", Layout())
    attention = nn.MultiheadAttention(12, 4, kdim=5, vdim=7, add_bias_kv=True)
    assert roles(groups(attention)) == {
        "q_proj_weight": "matrices",
        "k_proj_weight": "matrices",
        "v_proj_weight": "matrices",
        "in_proj_bias": "biases",
        "bias_k": "biases",
        "bias_v": "biases",
        "out_proj.weight": "matrices",
        "out_proj.bias": "biases",
    }
    assert "two inputs" in placed(groups(nn.Bilinear(3, 4, 5)))["weight"][2]
    assert set(roles(groups(nn.Sequential(nn.EmbeddingBag(9, 4), nn.InstanceNorm1d(4, affine=True)))).values()) == {
        "embeddings",
        "norms",
    }


class Quantised(nn.Module):
    """A linear layer that is no nn.Linear, as replacements by other libraries are."""

    def __init__(self, stored: tuple[int, int]) -> None:
        super().__init__()
        self.in_features, self.out_features = 4, 6
        self.weight = nn.Parameter(torch.zeros(stored))


def test_what_is_inferred_says_so() -> None:
    found = placed(groups(nn.ModuleList([Quantised((6, 4)), Quantised((4, 6))])))
    assert found["0.weight"][:2] == ("matrices", Layout())
    assert found["1.weight"][:2] == ("matrices", Layout("transposed"))
    assert all(reason.startswith("inferred") for _, _, reason in found.values())
    assert placed(groups(Quantised((5, 5))))["weight"][0] == "others"


def test_parametrized_and_integer_parameters_go_to_adamw() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), nn.Linear(6, 6), nn.Linear(6, 2))
    found = placed(groups(model))
    assert found["0.parametrizations.weight.original0"][0] == "vectors"
    assert "ParametrizationList" in found["0.parametrizations.weight.original1"][2]
    packed = nn.Linear(4, 6)
    packed.weight = nn.Parameter(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    assert placed(groups(packed))["weight"] == ("others", None, "torch.uint8: never trained")
