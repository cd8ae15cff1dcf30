"""What schemathesis makes of the whole OpenAPI: no request makes the server fail."""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from served import build, client

LOCAL = {"host": "localhost"}
SETTINGS = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def test_no_request_makes_it_fail(tmp_path: Path, subtests: pytest.Subtests) -> None:
    app = client(build(tmp_path, 3), write=True).app
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=LOCAL)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 19
    for operation in operations:
        with subtests.test(operation.label):

            @SETTINGS
            @given(case=operation.as_strategy())
            def check(case: schemathesis.Case) -> None:
                case.path_parameters["name"] = "mine"
                response = case.call(headers=LOCAL)
                case.validate_response(response, checks=[not_a_server_error])
                if response.status_code >= 400:
                    assert set(response.json()) == {"error", "hint"}

            check()
