"""What an exported file costs is measured to the end: both formats beside PyTorch."""

from simulations.bench import export, predict


def test_every_way_has_figures(synthetic_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PICTURES", 2)
    monkeypatch.setattr(export, "_TURNS", 1)
    monkeypatch.setattr(export, "_THREADS", (1,))
    run = predict.small_run(tmp_path, {**predict.SETTINGS["network"], "predictions": 1})
    found = {each.what: each.value for each in export.bench_export(run, synthetic_folder)}
    assert list(found) == [
        "ONNX, file",
        "ONNX, 8 bits, file",
        "PyTorch, 1 thread, a picture",
        "PyTorch, 1 thread, memory",
        "ONNX, 1 thread, a picture",
        "ONNX, 1 thread, memory",
        "ONNX, 8 bits, 1 thread, a picture",
        "ONNX, 8 bits, 1 thread, memory",
    ]
    assert min(found.values()) > 0
    assert found["ONNX, 8 bits, file"] < found["ONNX, file"] / 2
    assert found["ONNX, 1 thread, memory"] < found["PyTorch, 1 thread, memory"]
