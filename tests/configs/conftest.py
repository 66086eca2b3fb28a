"""What the tests of the configuration share: commands, and what they say."""

import json
from collections.abc import Callable

import pytest

from flowferry import launch
from flowferry.configs.schema import Config


@pytest.fixture
def printed_config(capsys: pytest.CaptureFixture[str]) -> Callable[..., Config]:
    """printed_config(*argv): what `--print-config` says of a command, read back."""

    def printed(*argv: str) -> Config:
        assert launch.main([*argv, "--print-config"]) == 0
        return Config.from_dict(json.loads(capsys.readouterr().out))

    return printed


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """error_of(*argv): the one line on standard error of a command that must fail with code 2, without "error: "."""

    def error(*argv: str) -> str:
        assert launch.main(argv) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and told.startswith("error: ")
        return told.removeprefix("error: ").rstrip("\n")

    return error
