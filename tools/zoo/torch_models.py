"""Thin networks in torch, torchvision, timm and transformers, with seeded weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tools.zoo.recipe import CLASSES, SIZE, core_weights

warnings.filterwarnings("ignore")
logging.getLogger("torch.onnx").setLevel(logging.ERROR)
# torchvision without its compiled half: it registers
# kernels for these two names when it is imported.
_LIBRARY = torch.library.Library("torchvision", "DEF")
_LIBRARY.define("nms(Tensor a, Tensor b, float c) -> Tensor")
_LIBRARY.define("qnms(Tensor a, Tensor b, float c) -> Tensor")

import timm  # noqa: E402
import torchvision  # noqa: E402
from timm.layers import BlurPool2d, EcaModule, SEModule, create_conv2d  # noqa: E402
from timm.models import byobnet, metaformer  # noqa: E402
from timm.models import resnet as timm_resnet  # noqa: E402
from timm.models import resnetv2 as timm_resnetv2  # noqa: E402
from torchvision.models.resnet import BasicBlock, Bottleneck  # noqa: E402
from torchvision.models.video import resnet as video  # noqa: E402

THIN = (8, 16)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.InstanceNorm2d)


def seeded(model: nn.Module, seed: int = 3) -> nn.Module:
    """`model` in evaluation mode, every parameter and every
    batch statistic drawn anew, none of them trivial.
    """
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Conv1d | nn.Conv3d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 0, 0.1)
        elif isinstance(layer, NORMS):
            if layer.weight is not None:
                nn.init.uniform_(layer.weight, 0.6, 1.4)
                layer.weight.data[::8] *= -1
                nn.init.normal_(layer.bias, 0.1, 0.15)
            if getattr(layer, "running_mean", None) is not None:
                nn.init.normal_(layer.running_mean, 0, 0.2)
                nn.init.uniform_(layer.running_var, 0.5, 2)
    return model.eval()


def drawn(make: Callable[[], nn.Module], seed: int = 3) -> nn.Module:
    """A transformer with all its parameters drawn anew, tokens, positions and norms too."""
    torch.manual_seed(seed)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            scales = bool((parameter == 1.0).all())  # of a norm
            parameter.normal_(float(scales), 0.3)
    return model.eval()


class ThinResNet(torchvision.models.ResNet):
    """torchvision's ResNet with two stages of few channels."""

    def __init__(
        self,
        block: type[nn.Module],
        planes: tuple[int, int],
        depth: int,
        expansion: int,
        **options: int,
    ):
        thin = type(f"Thin{block.__name__}", (block,), {"expansion": expansion})
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
        self.groups, self.base_width = (
            int(options.get("groups", 1)),
            int(options.get("base_width", 64)),
        )
        self.inplanes, self.dilation = 8, 1
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = self._make_layer(thin, planes[0], depth)
        self.layer2 = self._make_layer(
            thin, planes[1], depth, stride=2, dilate=bool(options.get("dilate", False))
        )
        self.layer3 = self.layer4 = nn.Identity()
        self.fc = nn.Linear(planes[1] * expansion, CLASSES)


def core() -> nn.Module:
    """The shared network."""
    model = ThinResNet(Bottleneck, (4, 8), 2, 4)
    state = {name: torch.from_numpy(values) for name, values in core_weights().items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    return model.eval()


class SignalBlock(nn.Module):
    """A basic block along one axis."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(into, out, 7, stride, 3, bias=False),
            nn.BatchNorm1d(out),
            nn.ReLU(),
            nn.Conv1d(out, out, 7, 1, 3, bias=False),
            nn.BatchNorm1d(out),
        )
        self.skip = nn.Identity()
        if into != out or stride != 1:
            projection = nn.Conv1d(into, out, 1, stride, bias=False)
            self.skip = nn.Sequential(projection, nn.BatchNorm1d(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


class SignalResNet(nn.Sequential):
    """A ResNet of signals (N, 2, L), such as an electrocardiogram of two leads."""

    def __init__(self, width: int = 8, classes: int = CLASSES) -> None:
        super().__init__(
            nn.Conv1d(2, width, 15, 2, 7, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.MaxPool1d(3, 2, 1),
            SignalBlock(width, width, 1),
            SignalBlock(width, 2 * width, 2),
            SignalBlock(2 * width, 2 * width, 1),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(2 * width, classes),
        )


class ThinVideoResNet(video.VideoResNet):
    """torchvision's ResNet of films (N, 3, D, H, W) with two stages of few channels: of 3-D
    convolutions, and of such that are factored into space and time (R(2+1)D).
    """

    def __init__(self) -> None:
        makers = [video.Conv3DSimple] * 4
        super().__init__(video.BasicBlock, makers, [1, 1, 1, 1], video.BasicStem, CLASSES)
        self.inplanes = 8
        self.stem = nn.Sequential(
            nn.Conv3d(3, 8, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.layer1 = self._make_layer(video.BasicBlock, video.Conv3DSimple, 8, 2)
        self.layer2 = self._make_layer(video.BasicBlock, video.Conv2Plus1D, 16, 2, stride=2)
        self.layer3 = self.layer4 = nn.Identity()
        self.fc = nn.Linear(16, CLASSES)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation written out as a product and a
    sum of constants, as detection backbones have it.
    """

    def __init__(self, of: nn.BatchNorm2d) -> None:
        super().__init__()
        scale = of.weight * (of.running_var + of.eps).rsqrt()
        self.register_buffer("scale", scale.detach().reshape(1, -1, 1, 1))
        self.register_buffer(
            "shift", (of.bias - of.running_mean * scale).detach().reshape(1, -1, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def replaced(
    model: nn.Module, kind: type[nn.Module], by: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """`model` with every layer of `kind` replaced."""
    for name, child in model.named_children():
        if isinstance(child, kind):
            setattr(model, name, by(child))
        else:
            replaced(child, kind, by)
    return model


class Prepared(nn.Module):
    """Pictures as they are stored, uint8 (N, H, W, 3), in; the model's own preparation inside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        pictures = x.permute(0, 3, 1, 2).float() / 255.0
        return self.model((pictures - self.mean) / self.std)


class ViewHead(nn.Module):
    """The head of older code: ``x.view(x.size(0), -1)``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        m = self.model
        x = m.layer2(m.layer1(m.maxpool(m.relu(m.bn1(m.conv1(x))))))
        x = m.avgpool(x)
        return m.fc(x.view(x.size(0), -1))


class Softmaxed(nn.Module):
    """Probabilities as the output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).softmax(1)


class TwoHeads(nn.Module):
    """A backbone that hands out a feature map besides the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        m = self.model
        features = m.layer1(m.maxpool(m.relu(m.bn1(m.conv1(x)))))
        return m.fc(torch.flatten(m.avgpool(m.layer2(features)), 1)), features


class OptionA(nn.Module):
    """A CIFAR ResNet: basic blocks whose shortcuts subsample and pad with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.main = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, stride=s, padding=1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
                nn.Conv2d(b, b, 3, padding=1, bias=False),
                nn.BatchNorm2d(b),
            )
            for a, b, s in ((8, 8, 1), (8, 16, 2), (16, 32, 2))
        )
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for main in self.main:
            y = main(x)
            more = (y.shape[1] - x.shape[1]) // 2
            short = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more)) if more else x
            x = torch.relu(y + short)
        x = nn.functional.avg_pool2d(x, 8)
        return self.fc(x.view(-1, 32))


class AttentionBranch(nn.Module):
    """An attention branch network (Fukui et al. 2019): features × (1 + attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = ThinResNet(BasicBlock, (8, 16), 1, 1)
        self.block = BasicBlock(8, 8)
        self.bn_att, self.bn_map = nn.BatchNorm2d(8), nn.BatchNorm2d(1)
        self.to_classes = nn.Conv2d(8, CLASSES, 1, bias=False)
        self.to_scores = nn.Conv2d(CLASSES, CLASSES, 1, bias=False)
        self.to_map = nn.Conv2d(CLASSES, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = self.trunk
        x = t.layer1(t.maxpool(t.relu(t.bn1(t.conv1(x)))))
        branch = torch.relu(self.to_classes(self.bn_att(self.block(x))))
        attention = torch.sigmoid(self.bn_map(self.to_map(branch)))
        scores = self.to_scores(branch).mean((2, 3))
        x = x * attention + x
        x = t.layer2(x)
        return scores, t.fc(torch.flatten(t.avgpool(x), 1)), attention


def _timm(**options: object) -> nn.Module:
    settings = {
        "layers": (1, 1),
        "channels": THIN,
        "num_classes": CLASSES,
        "stem_width": 8,
        **options,
    }
    block = settings.pop("block", timm_resnet.Bottleneck)
    model = timm_resnet.ResNet(block, **settings)
    model.layer3 = model.layer4 = nn.Identity()
    return seeded(model)


def _timm_v2(**options: object) -> nn.Module:
    settings = {
        "layers": (1, 1),
        "channels": (16, 32),
        "num_classes": CLASSES,
        "stem_chs": 8,
        **options,
    }
    return seeded(timm_resnetv2.ResNetV2(**settings))


def _hugging_face(**options: object) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = ResNetConfig(
                embedding_size=8,
                hidden_sizes=[16, 32],
                depths=[1, 2],
                num_labels=CLASSES,
                **options,
            )
            self.model = ResNetForImageClassification(config)

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x, return_dict=True).logits

    return seeded(Logits())


def _hugging_face_vit() -> nn.Module:
    from transformers import ViTConfig
    from transformers.models.vit.modeling_vit import ViTForImageClassification

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = ViTConfig(
                hidden_size=24,
                num_hidden_layers=2,
                num_attention_heads=3,
                intermediate_size=48,
                image_size=SIZE,
                patch_size=8,
                num_labels=CLASSES,
            )
            self.model = ViTForImageClassification(config)

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x).logits

    return drawn(Logits)


def _drawn(model: nn.Module) -> nn.Module:
    """`model` as `seeded` makes it, with no parameter that is one number everywhere: scales of
    layers and of norms, which start so small or so plain that nothing would show.
    """
    model = seeded(model)
    for name, parameter in model.named_parameters():
        if parameter.numel() > 1 and (parameter == parameter.flatten()[0]).all():
            shift = 0.0 if "bias" in name or "beta" in name else 1.0
            nn.init.normal_(parameter, shift, 0.2)
    return model


class SeparateAttention(nn.Module):
    """Self-attention with a layer each for queries, keys and values, as Hugging Face's library
    wrote it when ONNX Runtime's optimiser for transformers was made.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def _apart(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.depth).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._apart(layer(x)) for layer in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / self.depth**0.5
        mixed = torch.matmul(scores.softmax(-1), value).permute(0, 2, 1, 3).contiguous()
        return self.out(mixed.view(x.shape))


class SeparateVit(nn.Module):
    """A vision transformer of two blocks with `SeparateAttention`."""

    def __init__(self, width: int = 16, heads: int = 2, patch: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (SIZE // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                (
                    nn.LayerNorm(width),
                    SeparateAttention(width, heads),
                    nn.LayerNorm(width),
                    nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width)),
                )
            )
            for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat((self.token.expand(y.shape[0], -1, -1), y), 1) + self.positions
        for before_attention, attention, before_layers, layers in self.blocks:
            y = attention(before_attention(y)) + y
            y = layers(before_layers(y)) + y
        return self.head(self.norm(y)[:, 0])


class Pyramid(nn.Module):
    """Feature maps of two sizes that meet: resized in three ways, by a transposed convolution and
    by a pixel shuffle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.lateral = nn.Conv2d(16, 8, 1)
        self.up = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1)
        self.shuffle = nn.Sequential(nn.Conv2d(16, 32, 1), nn.PixelShuffle(2))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.relu(self.fine(x))
        coarse = torch.relu(self.coarse(fine))
        lateral = self.lateral(coarse)
        resize = nn.functional.interpolate
        smooth = resize(lateral, size=fine.shape[2:], mode="bilinear", align_corners=False)
        whole = fine + smooth + resize(lateral, scale_factor=2.0, mode="nearest")
        whole = whole + self.up(coarse) + self.shuffle(coarse)
        return self.fc(nn.functional.selu(whole).mean((2, 3)))


class Cosine(nn.Module):
    """Generalised-mean pooling, then the cosine of the features with every class."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()
        )
        self.power = nn.Parameter(torch.tensor([3.0]))
        self.classes = nn.Linear(16, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).clamp(min=1e-6).pow(self.power).mean((2, 3)).pow(1 / self.power)
        unit = nn.functional.normalize
        return 16 * nn.functional.linear(unit(x), unit(self.classes.weight))


def _convnext(**options: object) -> nn.Module:
    return _drawn(
        timm.models.ConvNeXt(
            depths=(1, 1, 1, 1),
            dims=(8, 8, 16, 16),
            patch_size=1,
            num_classes=CLASSES,
            **options,
        )
    )


def _mixer(**options: object) -> nn.Module:
    settings = {"img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 16, **options}
    return _drawn(timm.models.MlpMixer(num_classes=CLASSES, **settings))


def _thin(name: str, **options: object) -> nn.Module:
    return _drawn(timm.create_model(name, num_classes=CLASSES, **options))


def _vit(name: str, **options: object) -> nn.Module:
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 2, **options}
    return drawn(lambda: timm.create_model(name, num_classes=CLASSES, **settings))


def _eva() -> nn.Module:
    """Its attention written out: torch's exporters fail on the fused one, or hide it."""
    model = _vit("eva02_tiny_patch14_224", depth=2)
    for layer in model.modules():
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = False
    return model


def _botnet() -> nn.Module:
    blocks = (
        byobnet.ByoBlockCfg("bottle", d=1, c=16, s=2, br=0.5),
        byobnet.ByoBlockCfg("self_attn", d=1, c=32, s=1, br=0.5),
    )
    config = byobnet.ByoModelCfg(
        blocks, stem_chs=8, stem_type="3x3", stem_pool="", self_attn_layer="bottleneck"
    )
    torch.manual_seed(3)  # the relative positions stay as they are drawn here
    return seeded(byobnet.ByobNet(config, num_classes=CLASSES, img_size=(32, 32)))


def _small_vgg() -> nn.Module:
    layers = torchvision.models.vgg.make_layers([8, "M", 16, "M", 16, "M"], batch_norm=True)
    return nn.Sequential(
        layers, nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, CLASSES)
    )


ARCHITECTURES: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "basic": (
        "ResNet-18 style: basic blocks",
        lambda: seeded(ThinResNet(BasicBlock, (8, 16), 2, 1)),
    ),
    "v1": (
        "ResNet v1: the stride in the first 1x1 (Hugging Face)",
        lambda: _hugging_face(downsample_in_bottleneck=True),
    ),
    "hf": ("ResNet v1.5 (Hugging Face)", _hugging_face),
    "v2": (
        "ResNet v2: pre-activation (timm)",
        lambda: _timm_v2(preact=True, conv_layer=create_conv2d, norm_layer=_norm2),
    ),
    "resnext": ("ResNeXt: grouped convolutions", lambda: _timm(cardinality=4, base_width=16)),
    "wide": ("Wide ResNet", lambda: seeded(ThinResNet(Bottleneck, (4, 8), 1, 4, base_width=128))),
    "resnet-d": (
        "ResNet-D: deep stem, average-pooled shortcuts",
        lambda: _timm(stem_type="deep", avg_down=True),
    ),
    "dilated": (
        "dilated ResNet",
        lambda: seeded(ThinResNet(Bottleneck, (4, 8), 2, 4, dilate=True)),
    ),
    "se": (
        "SE-ResNet: squeeze-and-excitation gates",
        lambda: _timm(block_args={"attn_layer": SEModule}),
    ),
    "eca": (
        "ECA-ResNet: 1-D convolution gates",
        lambda: _timm(block_args={"attn_layer": EcaModule}),
    ),
    "blur": (
        "anti-aliased ResNet: blur pools",
        lambda: _timm(aa_layer=BlurPool2d, block=timm_resnet.BasicBlock),
    ),
    "avg-aa": ("anti-aliased ResNet: average pools", lambda: _timm(aa_layer=nn.AvgPool2d)),
    "option-a": ("CIFAR ResNet, option-A shortcuts", lambda: seeded(OptionA())),
    "relu6": ("ResNet with ReLU6", lambda: _timm(act_layer=nn.ReLU6)),
    "leaky": ("ResNet with LeakyReLU", lambda: _timm(act_layer=nn.LeakyReLU)),
    "silu": ("ResNet with SiLU", lambda: _timm(act_layer=nn.SiLU)),
    "gelu": ("ResNet with GELU", lambda: _timm(act_layer=_gelu)),
    "hardswish": ("ResNet with hard swish", lambda: _timm(act_layer=nn.Hardswish)),
    "group-norm": ("ResNet with GroupNorm", lambda: _timm(norm_layer=_group_norm)),
    "instance-norm": ("ResNet with InstanceNorm", lambda: _timm(norm_layer=_instance_norm)),
    "bit": (
        "BiT: pre-activation, GroupNorm, standardised weights",
        lambda: _timm_v2(stem_type="fixed", norm_layer=_standardised_norm),
    ),
    "two-outputs": ("ResNet that also hands out a feature map", lambda: TwoHeads(core())),
    "abn": ("attention branch network", lambda: seeded(AttentionBranch())),
    "densenet": (
        "DenseNet",
        lambda: seeded(
            torchvision.models.DenseNet(
                8, (2, 2), num_init_features=8, bn_size=2, num_classes=CLASSES
            ),
        ),
    ),
    "vgg": ("VGG with batch normalisation", lambda: seeded(_small_vgg())),
    "mobilenet-v2": (
        "MobileNetV2",
        lambda: seeded(
            torchvision.models.MobileNetV2(
                num_classes=CLASSES,
                width_mult=0.25,
                inverted_residual_setting=[[1, 16, 1, 1], [4, 24, 2, 2], [4, 32, 1, 2]],
                round_nearest=4,
            )
        ),
    ),
    "vit": (
        "vision transformer",
        lambda: drawn(
            lambda: torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=CLASSES)
        ),
    ),
    "vit-separate": (
        "vision transformer with separate queries, keys and values",
        lambda: drawn(SeparateVit),
    ),
    "hf-vit": ("vision transformer (Hugging Face)", _hugging_face_vit),
    "deit": (
        "DeiT: vision transformer as timm writes it",
        lambda: drawn(
            lambda: timm.create_model(
                "deit_tiny_patch16_224",
                img_size=32,
                patch_size=8,
                embed_dim=24,
                depth=2,
                num_classes=CLASSES,
            )
        ),
    ),
    "swin": (
        "Swin: attention in shifted windows",
        lambda: drawn(
            lambda: timm.create_model(
                "swin_tiny_patch4_window7_224",
                img_size=32,
                window_size=4,
                embed_dim=8,
                depths=(2, 2),
                num_heads=(2, 4),
                num_classes=CLASSES,
            )
        ),
    ),
    "eva": (
        "EVA-02: rotary positions, gated MLPs",
        _eva,
    ),
    "attention-pool": (
        "SigLIP: attention pooling by a learnt query",
        lambda: _vit("vit_base_patch16_siglip_224", depth=1),
    ),
    "botnet": ("BoTNet: attention with relative positions", _botnet),
    "efficientvit": (
        "EfficientViT: linear attention",
        lambda: seeded(
            timm.create_model(
                "efficientvit_b0",
                widths=(8, 8, 16, 16, 16),
                depths=(1, 1, 1, 1, 1),
                head_dim=8,
                head_widths=(32, 48),
                num_classes=CLASSES,
            )
        ),
    ),
    "edgenext": (
        "EdgeNeXt: attention between channels",
        lambda: _thin("edgenext_xx_small", depths=(1, 2, 2, 1), dims=(8, 16, 24, 32)),
    ),
    "convnext": ("ConvNeXt: dense layers over channels last", _convnext),
    "convnext-v2": (
        "ConvNeXt V2: global response normalisation",
        lambda: _convnext(use_grn=True, ls_init_value=None),
    ),
    "mixer": ("MLP-Mixer: dense layers over tokens", _mixer),
    "resmlp": (
        "ResMLP: dense layers over tokens, affines",
        lambda: _mixer(
            mlp_ratio=4,
            block_layer=timm.models.mlp_mixer.ResBlock,
            norm_layer=timm.models.mlp_mixer.Affine,
        ),
    ),
    "poolformer": (
        "PoolFormer: pooling minus the pixel itself",
        lambda: _drawn(
            metaformer.MetaFormer(
                depths=(1, 1, 1, 1),
                dims=(8, 8, 16, 16),
                num_classes=CLASSES,
                downsample_norm=None,
                mlp_act=nn.GELU,
                mlp_bias=True,
                norm_layers=metaformer.GroupNorm1,
                layer_scale_init_values=1e-5,
                res_scale_init_values=None,
                use_mlp_head=False,
            )
        ),
    ),
    "fastvit": (
        "FastViT: differences, large kernels",
        lambda: _thin("fastvit_t8", layers=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16)),
    ),
    "cbam": ("CBAM: gates from maxima", lambda: _timm(block_args={"attn_layer": "cbam"})),
    "frn": (
        "ResNet with filter response normalisation",
        lambda: _drawn(
            _timm_v2(
                preact=False,
                conv_layer=create_conv2d,
                norm_layer=timm.layers.FilterResponseNormTlu2d,
            )
        ),
    ),
    "gem-cosine": ("generalised-mean pooling, cosine head", lambda: seeded(Cosine())),
    "pyramid": ("feature pyramid: Resize, transposed convolution", lambda: seeded(Pyramid())),
    "res2net": (
        "Res2Net: splits and concatenations inside a block",
        lambda: _timm(
            block=timm.models.res2net.Bottle2neck, base_width=16, block_args={"scale": 4}
        ),
    ),
    "sknet": (
        "SK-ResNet: softmax gates over branches",
        lambda: _timm(block=timm.models.sknet.SelectiveKernelBasic),
    ),
}
"""Family → (what it is, how to make it)."""


def _norm2(channels: int, **_: object) -> nn.Module:
    from timm.layers import BatchNormAct2d

    return BatchNormAct2d(channels)


def _group_norm(channels: int, **_: object) -> nn.Module:
    return nn.GroupNorm(4, channels)


def _standardised_norm(channels: int, **_: object) -> nn.Module:
    from timm.layers import GroupNormAct

    return GroupNormAct(channels, num_groups=4)


def _gelu(inplace: bool = False) -> nn.Module:
    return nn.GELU()


def _instance_norm(channels: int, **_: object) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)
