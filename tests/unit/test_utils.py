from infinity_worker.utils import create_error_response


def test_an_error_has_openais_shape() -> None:
    assert create_error_response("too big", "request_too_large", 413, "input[3]") == {
        "error": {
            "message": "too big",
            "type": "request_too_large",
            "param": "input[3]",
            "code": 413,
        }
    }


def test_param_is_null_where_no_field_is_at_fault() -> None:
    assert create_error_response("down", "engine_unavailable", 503) == {
        "error": {"message": "down", "type": "engine_unavailable", "param": None, "code": 503}
    }
