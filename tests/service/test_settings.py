"""Settings are read once, checked at the edge, and keep their secrets."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.settings import Settings, base_of, url_of, without_credentials


def test_everything_durable_lies_below_an_absolute_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "a" / ".." / "home")
    assert settings.home == tmp_path / "home"
    assert settings.models_dir == settings.home / "models"
    assert settings.database_url == f"sqlite+aiosqlite:///{tmp_path}/home/registry.db"
    settings.make_directories()
    settings.make_directories()
    assert settings.artifacts_dir.is_dir()
    assert settings.home.stat().st_mode & 0o077 == 0
    assert Settings().home.is_absolute()


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "10.0.0.1:80", "example.org:80", "127.0.0.1", "127.0.0.1:70000"]
)
def test_an_address_that_is_not_loopback_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="grpc_address"):
        Settings(grpc_address=address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:50051", "localhost:8080"])
def test_loopback_addresses_are_taken(address: str) -> None:
    assert Settings(gateway_address=address).gateway_address == address


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        engine_api_key=SecretStr("canary-key"),
        database_url="postgresql+asyncpg://user:canary-key@host/db",
    )
    assert "canary-key" not in repr(settings)
    assert "canary-key" not in str(settings)


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings(home=tmp_path).trainer_threads = 3


def test_directories_for_imports_are_listed_as_in_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTLORA_DATASET_ROOTS", f"{tmp_path}/a:{tmp_path}/b/../c:")
    assert Settings().dataset_roots == (tmp_path / "a", tmp_path / "c")
    monkeypatch.delenv("HOTLORA_DATASET_ROOTS")
    assert Settings().dataset_roots == ()


def test_a_checkout_of_llama_cpp_must_have_its_converter(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"it has no convert_hf_to_gguf\.py"):
        Settings(llama_cpp_dir=tmp_path)
    (tmp_path / "convert_hf_to_gguf.py").touch()
    assert Settings(llama_cpp_dir=tmp_path).llama_cpp_dir == tmp_path
    assert Settings().llama_cpp_dir is None


def test_engines_to_attach_to_are_listed_with_commas_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLORA_ENGINE_URLS", "http://127.0.0.1:8001, http://127.0.0.1:8002,")
    assert Settings().engine_urls == ("http://127.0.0.1:8001", "http://127.0.0.1:8002")
    monkeypatch.setenv("HOTLORA_ENGINE_URLS", "dns+http://engines:8000")
    assert Settings().engine_urls == ("dns+http://engines:8000",)
    for wrong, said in (
        ("127.0.0.1:8001", "engine_urls"),
        ("dns+https://engines:8000", "certificates are of names"),
        ("http://engines:99999", "ort"),
        ("http://:8000", "no host"),
        ("http://a:1,http://me@a:1/", "twice"),
    ):
        monkeypatch.setenv("HOTLORA_ENGINE_URLS", wrong)
        with pytest.raises(ValidationError, match=said):
            Settings()


def test_an_engine_may_be_named_with_its_base_model(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = "http://127.0.0.1:8001,Qwen/Qwen3-0.6B=http://127.0.0.1:8002,other=dns+http://engines:8000/?a=b"
    monkeypatch.setenv("HOTLORA_ENGINE_URLS", urls)
    found = Settings().engine_urls
    assert [base_of(url) for url in found] == ["", "Qwen/Qwen3-0.6B", "other"]
    assert [url_of(url) for url in found] == [
        "http://127.0.0.1:8001",
        "http://127.0.0.1:8002",
        "dns+http://engines:8000/?a=b",
    ]
    for wrong, said in (
        ("=http://127.0.0.1:8001", "engine_urls"),
        ("a=b=http://127.0.0.1:8001", "engine_urls"),
        ("one=http://127.0.0.1:8001,two=http://127.0.0.1:8001", "twice"),
        ("one=dns+https://engines:8000", "certificates are of names"),
    ):
        monkeypatch.setenv("HOTLORA_ENGINE_URLS", wrong)
        with pytest.raises(ValidationError, match=said):
            Settings()


def test_more_base_models_are_listed_with_commas_and_need_ports_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLORA_MORE_BASE_MODELS", "Qwen/Qwen3-0.6B, /models/mine,")
    assert Settings().more_base_models == ("Qwen/Qwen3-0.6B", "/models/mine")
    assert Settings(engine_port=65533).most_engines == 3
    with pytest.raises(ValidationError, match="65535"):
        Settings(engine_port=65534)
    # Those of a base that has no engine to attach to are ours.
    assert Settings(engine_urls=("http://127.0.0.1:8001",), engine_replicas=2).engine_replicas == 2


def test_replicas_are_of_our_own_engines_and_need_a_port_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLORA_ENGINE_REPLICAS", "3")
    assert Settings(engine_port=65533).engine_replicas == 3
    with pytest.raises(ValidationError, match="65535"):
        Settings(engine_port=65534)
    with pytest.raises(ValidationError, match="HOTLORA_ENGINE_URLS"):
        Settings(engine_urls=("http://127.0.0.1:8001",))


def test_a_collector_of_traces_has_a_url_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().traces_endpoint is None
    monkeypatch.setenv("HOTLORA_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")
    assert Settings().traces_endpoint == "http://127.0.0.1:4318/v1/traces"
    for wrong, said in (
        ("127.0.0.1:4318", "traces_endpoint"),
        ("http://me:key@collector/v1", "OTEL_EXPORTER"),
    ):
        monkeypatch.setenv("HOTLORA_TRACES_ENDPOINT", wrong)
        with pytest.raises(ValidationError, match=said):
            Settings()


def test_credentials_in_an_engines_url_are_not_printed(tmp_path: Path) -> None:
    urls = ("http://me:canary-key@127.0.0.1:8001/",)
    assert "canary-key" not in repr(Settings(home=tmp_path, engine_urls=urls))
    assert without_credentials(urls[0]) == "http://127.0.0.1:8001"
