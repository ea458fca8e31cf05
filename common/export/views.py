"""From a picture's pixels to normalised prediction views, as an ONNX graph.

The graph does what :mod:`common.features.transform` and :mod:`common.features.augment` do with
Pillow. Pillow resizes by a weighted mean over columns, rounded to 8 bits, then one over rows, by
weights of 22 binary places; here each is a product with a matrix of these weights, exact in 64-bit
floats. ONNX's own Resize rounds elsewhere, and not all runtimes have it antialiased.
"""

from collections.abc import Iterator

from onnx import ModelProto, parser

from common.features.augment import CROPS
from common.features.extract import FeatureSpec
from common.features.transform import exponent

PIXELS, VIEWS = "pixels", "views"
"""Names of what goes in, uint8 (height, width, 3), and comes out, (P, 3, size, size)."""

_FUNCTIONS = """
<domain: "fedderm", opset_import: ["" : {opset}]>
weights (before, after) => (result)
{{
  n = Cast<to = 11>(before)
  m = Cast<to = 11>(after)
  zero = Constant<value = double {{0.0}}>()
  half = Constant<value = double {{0.5}}>()
  one = Constant<value = double {{1.0}}>()
  two = Constant<value = double {{2.0}}>()
  scale = Div(n, m)
  wide = Max(scale, one)
  from = Range(zero, n, one)
  to = Range(zero, m, one)
  first = Constant<value_ints = [0]>()
  last = Constant<value_ints = [1]>()
  row = Unsqueeze(from, first)
  column = Unsqueeze(to, last)
  middle = Add(column, half)
  centre = Mul(middle, scale)
  position = Add(row, half)
  apart = Sub(position, centre)
  signed = Div(apart, wide)
  x = Abs(signed)
  inner = Min(x, one)
  near_a = Constant<value = double {{1.5}}>()
  near_b = Constant<value = double {{2.5}}>()
  n1 = Mul(near_a, inner)
  n2 = Sub(n1, near_b)
  n3 = Mul(n2, inner)
  n4 = Mul(n3, inner)
  near = Add(n4, one)
  outer = Clip(x, one, two)
  far_a = Constant<value = double {{5.0}}>()
  far_b = Constant<value = double {{8.0}}>()
  far_c = Constant<value = double {{4.0}}>()
  minus = Constant<value = double {{-0.5}}>()
  f1 = Sub(outer, far_a)
  f2 = Mul(f1, outer)
  f3 = Add(f2, far_b)
  f4 = Mul(f3, outer)
  f5 = Sub(f4, far_c)
  far = Mul(f5, minus)
  raw = Add(near, far)
  total = ReduceSum<keepdims = 1>(raw, last)
  shares = Div(raw, total)
  fine = Constant<value = double {{4194304.0}}>()
  large = Mul(shares, fine)
  size = Abs(large)
  more = Add(size, half)
  whole = Floor(more)
  sign = Sign(large)
  signed_whole = Mul(whole, sign)
  result = Div(signed_whole, fine)
}}
<domain: "fedderm", opset_import: ["" : {opset}]>
eight_bits (values) => (result)
{{
  half = Constant<value = double {{0.5}}>()
  least = Constant<value = double {{0.0}}>()
  most = Constant<value = double {{255.0}}>()
  more = Add(values, half)
  whole = Floor(more)
  result = Clip(whole, least, most)
}}
<domain: "fedderm", opset_import: ["" : {opset}, "fedderm" : 1]>
resized (planes, height, width) => (result)
{{
  shape = Shape<start = 1>(planes)
  h, w = Split<axis = 0, num_outputs = 2>(shape)
  none = Constant<value_ints = [0]>()
  old_height = Squeeze(h, none)
  old_width = Squeeze(w, none)
  columns = fedderm.weights(old_width, width)
  turned = Transpose<perm = [1, 0]>(columns)
  fine_planes = Cast<to = 11>(planes)
  exact_across = MatMul(fine_planes, turned)
  across = fedderm.eight_bits(exact_across)
  rows = fedderm.weights(old_height, height)
  exact = MatMul(rows, across)
  whole = fedderm.eight_bits(exact)
  result = Cast<to = 1>(whole)
}}
<domain: "fedderm", opset_import: ["" : {opset}]>
corner (room) => (result)
{{
  half = Constant<value = double {{0.5}}>()
  exact = Cast<to = 11>(room)
  middle = Mul(exact, half)
  rounded = Round(middle)
  result = Cast<to = 7>(rounded)
}}
"""

_REDUCED = """
  turned = Transpose<perm = [2, 0, 1]>(pixels)
  all = Cast<to = 1>(turned)
  sides = Shape<start = 1>(all)
  exact_sides = Cast<to = 11>(sides)
  short = ReduceMin<keepdims = 0>(exact_sides)
  resolution = Constant<value = double {{{resolution}.0}}>()
  scale = Div(resolution, short)
  scaled = Mul(exact_sides, scale)
  rounded = Round(scaled)
  at_least = Max(rounded, resolution)
  is_large = Greater(short, resolution)
  new_sides = Where(is_large, at_least, exact_sides)
  whole_sides = Cast<to = 7>(new_sides)
  zero = Constant<value = int64 {{0}}>()
  one = Constant<value = int64 {{1}}>()
  height = Gather(whole_sides, zero)
  width = Gather(whole_sides, one)
  reduced = If(is_large) <
    then_branch = smaller () => (float[3, new_height, new_width] less) {{
      less = fedderm.resized(all, height, width)
    }},
    else_branch = same () => (float[3, old_height, old_width] equal) {{
      equal = Identity(all)
    }}
  >
"""

_BALANCED = """
  most = Constant<value = double {{255.0}}>()
  least = Constant<value = double {{0.0}}>()
  unit = Constant<value = double {{1.0}}>()
  power = Constant<value = double {{{power}.0}}>()
  root = Constant<value = double {{{root}}}>()
  square = Constant<value = double {{2.0}}>()
  over_places = Constant<value_ints = [1, 2]>()
  fine = Cast<to = 11>(reduced)
  levels = Div(fine, most)
  raised = Pow(levels, power)
  mean_raised = ReduceMean<keepdims = 1>(raised, over_places)
  light = Pow(mean_raised, root)
  squares = Pow(light, square)
  mean_square = ReduceMean<keepdims = 0>(squares)
  strength = Sqrt(mean_square)
  is_lit = Greater(light, least)
  safe = Where(is_lit, light, unit)
  quotient = Div(strength, safe)
  gains = Where(is_lit, quotient, unit)
  lighter = Mul(fine, gains)
  whole_lighter = Round(lighter)
  in_range = Clip(whole_lighter, least, most)
  working = Cast<to = 1>(in_range)
"""

_PLAIN = """
  working = Identity(reduced)
"""

_VIEW = """
  share_{k} = Constant<value = double {{{share}}}>()
  side_exact_{k} = Mul(working_short, share_{k})
  side_round_{k} = Round(side_exact_{k})
  side_{k} = Cast<to = 7>(side_round_{k})
  room_h_{k} = Sub(height, side_{k})
  room_w_{k} = Sub(width, side_{k})
  top_{k} = fedderm.corner(room_h_{k})
  left_{k} = fedderm.corner(room_w_{k})
  bottom_{k} = Add(top_{k}, side_{k})
  right_{k} = Add(left_{k}, side_{k})
  top1_{k} = Unsqueeze(top_{k}, axis0)
  left1_{k} = Unsqueeze(left_{k}, axis0)
  bottom1_{k} = Unsqueeze(bottom_{k}, axis0)
  right1_{k} = Unsqueeze(right_{k}, axis0)
  start_{k} = Concat<axis = 0>(top1_{k}, left1_{k})
  end_{k} = Concat<axis = 0>(bottom1_{k}, right1_{k})
  crop_{k} = Slice(working, start_{k}, end_{k}, axes)
  crop_resized_{k} = fedderm.resized(crop_{k}, size, size)
"""

_UPRIGHT = """
  view_{k} = Unsqueeze(crop_resized_{k}, axis0)
"""

_MIRRORED = """
  mirror_{k} = Slice(crop_resized_{crop}, from_end, beyond, axis2, backwards)
  view_{k} = Unsqueeze(mirror_{k}, axis0)
"""

_JOINED = """
  stacked = Concat<axis = 0>({names})
  scaled_views = Mul(stacked, factor)
  views = Sub(scaled_views, offset)
"""

_CONSTANTS = """
  working_short_whole = Min(height, width)
  working_short = Cast<to = 11>(working_short_whole)
  axis0 = Constant<value_ints = [0]>()
  axes = Constant<value_ints = [1, 2]>()
  size = Constant<value = int64 {{{size}}}>()
"""


_BACKWARDS = """
  axis2 = Constant<value_ints = [2]>()
  from_end = Constant<value_ints = [-1]>()
  beyond = Constant<value_ints = [-1000000]>()
  backwards = Constant<value_ints = [-1]>()
"""


def views_graph(
    spec: FeatureSpec,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    opset: int,
    ir_version: int,
) -> ModelProto:
    """Return the graph from a picture to its prediction views, all of them.

    Parameters
    ----------
    spec : its transform, size and number of prediction views.
    statistics : mean and standard deviation of the channels, on [0, 1], that the network expects.
    opset, ir_version : of the network that the graph stands before.

    Returns
    -------
    A model from :data:`PIXELS`, an upright picture of any size, to :data:`VIEWS`.
    """
    body = "".join(_body(spec))
    per_channel = f"float[1, 3, 1, 1] factor = {_listed([1 / (255 * s) for s in statistics[1]])}"
    offsets = [m / s for m, s in zip(*statistics, strict=True)]
    text = f"""
<ir_version: {ir_version}, opset_import: ["" : {opset}, "fedderm" : 1]>
views (uint8[height, width, 3] {PIXELS}) =>
  (float[{spec.predictions}, 3, {spec.size}, {spec.size}] {VIEWS})
<{per_channel}, float[1, 3, 1, 1] offset = {_listed(offsets)}>
{{{body}}}
{_FUNCTIONS.format(opset=opset)}"""
    return parser.parse_model(text)


def _body(spec: FeatureSpec) -> Iterator[str]:
    yield _REDUCED.format(resolution=spec.transform.resolution)
    power = exponent(spec.transform.colour)
    yield _BALANCED.format(power=power, root=1 / power) if power else _PLAIN
    yield _CONSTANTS.format(size=spec.size)
    if spec.predictions > len(CROPS):
        yield _BACKWARDS
    for number in range(spec.predictions):
        crop = number % len(CROPS)
        if number == crop:
            yield _VIEW.format(k=number, share=float(CROPS[crop])) + _UPRIGHT.format(k=number)
        else:
            yield _MIRRORED.format(k=number, crop=crop)
    yield _JOINED.format(names=", ".join(f"view_{k}" for k in range(spec.predictions)))


def _listed(values: list[float]) -> str:
    return "{" + ", ".join(repr(float(value)) for value in values) + "}"
