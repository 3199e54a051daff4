"""Reading what `/metrics` shows."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.harness.mover import Mover


class Page:
    """One page of metrics."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        return sum(
            sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def names(self) -> set[str]:
        """What a query may ask for."""
        families = (name + end for name, family in self.families.items() for end in _ENDS[family.type])
        return {*families}

    @property
    def series(self) -> int:
        """How many there are."""
        return len(self._samples)

    @property
    def label_values(self) -> set[str]:
        """All of them."""
        return {value for sample in self._samples for value in sample.labels.values()}


_ENDS = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}


def metrics(mover: Mover, *, unix: bool = True) -> Page:
    """The page as it is now."""
    answer = mover.ask("GET", "/metrics", unix=unix)
    assert answer.status == 200, answer
    return Page(answer.body.decode())


def turned_away(mover: Mover, reason: str) -> float:
    """How many were turned away, or cut off, for this reason."""
    return metrics(mover).value("mover_refusals_total", reason=reason)
