"""Energy by the counters of processors."""

from __future__ import annotations

from pathlib import Path

from cpm_tune.common.energy import RunMeter


def zone(folder: Path, name: str, energy: int) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{energy}\n")
    (folder / name / "max_energy_range_uj").write_text("1000000000\n")


def test_processors_add_up_parts_of_them_do_not_and_counters_begin_again(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:1", 1_000_000)
    zone(tmp_path, "intel-rapl:1", 999_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", 1_000_000)
    meter = RunMeter(powercap=tmp_path)
    assert meter.joules() == 0
    zone(tmp_path, "intel-rapl:0", 7_500_000)
    zone(tmp_path, "intel-rapl:0:1", 9_000_000)
    zone(tmp_path, "intel-rapl:1", 1_000_000)
    assert meter.joules() == 2.5 + 2


def test_without_counters_nothing_is_known(tmp_path: Path) -> None:
    assert RunMeter(powercap=tmp_path).joules() is None
    (tmp_path / "intel-rapl:0").mkdir()  # that only root may read
    assert RunMeter(powercap=tmp_path / "none").joules() is None
    assert RunMeter(powercap=tmp_path).joules() is None
