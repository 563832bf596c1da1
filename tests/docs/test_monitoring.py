"""docs/production/monitoring.md and the dashboard name exactly the existing metrics."""

import ast
import json
import re
from pathlib import Path

import pytest
from opentelemetry.metrics import Meter, MeterProvider
from prometheus_client import CollectorRegistry

from sojourn import Sessions, telemetry
from sojourn.telemetry import labels
from sojourn.telemetry.buffered_histogram import BufferedHistogram
from sojourn.telemetry.opentelemetry_meters import Instruments
from sojourn.telemetry.prometheus_metrics import Metrics
from tests.support.telemetry import Exporters
from tests.unit.telemetry.test_numbers import Visitor, increment

FOLDER = Path(__file__).parents[2] / "docs" / "production"
PAGE = (FOLDER / "monitoring.md").read_text("utf-8")
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text("utf-8"))
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",)}


def exported():
    """Return the names of the samples of Prometheus with their label names."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    found = {}
    others = [each for name, each in vars(metrics).items() if name != "counters"]
    for metric in [*others, *metrics.counters.values()]:
        (family,) = metric.describe()
        is_ours = isinstance(metric, BufferedHistogram)
        names = metric.label_names if is_ours else metric._labelnames
        for suffix in SUFFIXES[family.type]:
            found[family.name + suffix] = {*names, "le", "instance"}
    return found


def documented():
    """Return the rows of the table of metrics: both names and the labels."""
    table = PAGE.partition("## Metrics")[2].partition("## Alerts")[0]
    rows = re.findall(r"^\| `(sojourn_\w+)` \| `([\w.]+)` \|([^|]*)\|", table, re.MULTILINE)
    return [(one, two, set(re.findall(r"`(\w+)`", text))) for one, two, text in rows]


def test_the_table_has_each_metric_of_prometheus_with_its_labels():
    found = {name: labels - {"realm", "le", "instance"} for name, labels in exported().items()}
    expected = {
        re.sub("_(bucket|count|sum)$", "", name): labels
        for name, labels in found.items()
        if not name.endswith(("_count", "_sum"))
    }
    assert {one: labels for one, _, labels in documented()} == expected


class Names(MeterProvider, Meter):
    """Records the names of the created instruments."""

    def __init__(self):
        self.names = set()

    def get_meter(self, *_, **__):
        return self

    def _create(self, name, *_, **__):
        self.names.add(name)

    create_counter = create_histogram = create_up_down_counter = create_gauge = _create
    create_observable_counter = create_observable_gauge = _create
    create_observable_up_down_counter = _create


def test_the_table_has_each_metric_of_opentelemetry():
    names = Names()
    Instruments(names)
    assert {two for _, two, _ in documented()} == names.names


def values(row):
    """Return the values in a row of the table of label values."""
    (text,) = re.findall(rf"^\| {row} \| (.*) \|$", PAGE, re.MULTILINE)
    return set(re.findall(r"`([a-z_ ]+)`", text))


@pytest.mark.parametrize(
    ("row", "known"),
    [
        ("`result`", labels.RESULTS),
        ("`reason` of rejections", labels.REJECTIONS | {"other"}),
        ("`reason` of revocations", labels.REVOCATIONS | {"other"}),
        ("`limit`", labels.LIMITS | {"other"}),
    ],
)
def test_the_values_of_labels_are_documented(row, known):
    assert values(row) == known


def test_the_attributes_of_spans_are_documented():
    table = PAGE.partition("| attribute of a span |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE))
    with Exporters() as exporters:
        sessions = Sessions(store="memory://")
        exporters.opentelemetry(sessions, include_session_id=True)
        visitor = Visitor(sessions)
        for _ in range(2):
            visitor.visit(increment)
        found = {name for span in exporters.spans() for name in span.attributes}
    assert documented == found | {"error.type"}


# Queries


def queries():
    """Return every PromQL query of the dashboard and of the alerts."""
    found = [
        pytest.param(target["expr"], id=panel["title"])
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]
    rules = re.findall(r"- alert: (\w+)\n +expr: (.*)\n", PAGE)
    return found + [pytest.param(query, id=name) for name, query in rules]


@pytest.mark.parametrize("query", queries())
def test_a_query_names_metrics_and_labels_that_exist(query):
    known = exported()
    names = set(re.findall(r"\bsojourn_\w+", query))
    assert names
    assert names <= known.keys()
    for name, selector in re.findall(r"\b(sojourn_\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)(?:=~|!=|=)", selector)) <= known[name], name
        for label, value in re.findall(r'(\w+)(?:=~|!=|=)"([^"$]*)"', selector):
            check_values(label, value.split("|"))
    for group in re.findall(r"by \(([^)]*)\)", query):
        used = {each.strip() for each in group.split(",")}
        assert any(used <= known[name] for name in names)
    for opening, closing in ("()", "{}", "[]"):
        assert query.count(opening) == query.count(closing)
    if re.search(r"_(total|count|sum|bucket)\b", query):  # a counter needs ``rate``
        assert re.search(r"\b(rate|increase)\(", query)


def check_values(label, found):
    known = {
        "result": labels.RESULTS,
        "reason": labels.REJECTIONS | labels.REVOCATIONS | {"other"},
        "operation": {"load", "save"},
    }
    assert set(found) <= known[label]


def test_the_dashboard_shows_every_metric():
    shown = {name for query in queries() for name in re.findall(r"sojourn_\w+", query.values[0])}
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in shown}
    assert families == {one for one, _, _ in documented()}


def test_the_dashboard_can_be_imported():
    """Grafana requires unique panel IDs, no overlap and a selectable data source."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (column, row)
        for panel in panels
        for at in [panel["gridPos"]]
        for column in range(at["x"], at["x"] + at["w"])
        for row in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"}
    assert used == variables
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 36
    for panel in panels:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_the_alerts_are_valid_yaml_with_a_summary_each():
    yaml = pytest.importorskip("yaml")
    (text,) = re.findall(r"```yaml title=\"sojourn-alerts.yml\"\n(.*?)```", PAGE, re.DOTALL)
    (group,) = yaml.safe_load(text)["groups"]
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "annotations"}
        assert rule["annotations"]["summary"]


def test_the_public_functions_have_the_documented_options():
    """Every keyword of the two functions appears on the page or in its examples."""
    tree = ast.parse(Path(telemetry.__file__).read_text("utf-8"))
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
            for option in function.args.kwonlyargs:
                if option.arg != "registry":
                    assert option.arg in PAGE, option.arg
