"""A ConvNeXt's state dict as another library would save it: the tables of convrun.weights, read backwards."""

from convrun.weights.tables import TABLES


def in_layout(state, layout):
    """The tensors under a layout's names, in its axes; a name that the layout has not is an error."""
    if layout == "timm":
        return dict(state)
    readings = [_theirs(state, table) for table in TABLES if table.layout == layout]
    whole = [found for found in readings if len(found) == len(state)]
    assert whole, f"{layout} has no name for {state.keys() - max(readings, key=len).keys()}"
    return dict(whole[0].values())


def _theirs(state, table):
    found = {}
    for ours, tensor in state.items():
        for rule in table.rules:
            if (values := rule.ours.match(ours)) is not None:
                found[ours] = (rule.theirs.fill(values), _in_axes(tensor, rule.axes))
                break
    return found


def _in_axes(tensor, axes):
    if axes[:1] == ("hw",):
        kernel = tensor.permute(3, 2, 1, 0).flatten(0, 1)  # columns first; [positions, in, out]
        return (kernel[:, 0] if len(axes) == 2 else kernel).contiguous()
    if not axes:
        return tensor
    sizes = iter(size for size in tensor.shape if size != 1 or len(axes) == tensor.ndim)
    return tensor.reshape([1 if axis == "1" else next(sizes) for axis in axes])
