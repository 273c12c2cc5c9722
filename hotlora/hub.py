"""Pushes exported files to the Hugging Face hub: from the caller's machine and with the caller's own token,
so that no service holds one. Needs `huggingface-hub`, which is loaded when something is pushed.
"""

from http import HTTPStatus
from pathlib import Path
from typing import Final

from hotlora import errors

_REFUSING: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


def push(directory: Path, repository: str, *, private: bool, message: str) -> str:
    """Makes the model repository OWNER/NAME, private or not, unless it is there; adds the files of
    `directory` to it in one commit; gives the commit's URL. The token is that of HF_TOKEN or `hf auth login`.

    Raises InvalidArgument (no name of a repository; the hub refuses the files), FailedPrecondition
    (HUB_NOT_INSTALLED, HUB_TOKEN_REFUSED), Unavailable (the hub does not answer, or cannot now).
    """
    try:
        from httpx2 import HTTPError  # noqa: PLC0415 - takes a second, and is an extra
        from huggingface_hub import HfApi  # noqa: PLC0415
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415
    except ImportError:
        raise errors.FailedPrecondition(
            "Pushing needs huggingface-hub: pip install 'hotlora[hub]'.", reason="HUB_NOT_INSTALLED"
        ) from None
    hub = HfApi(library_name="hotlora")
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        pushed = hub.upload_folder(repo_id=repository, folder_path=directory, commit_message=message)
        return str(pushed.commit_url)
    except HFValidationError:
        raise errors.InvalidArgument(f"{repository!r} is no OWNER/NAME of the hub.") from None
    except HfHubHTTPError as error:
        raise _refused(repository, error.response.status_code, error.server_message or "") from None
    except (HTTPError, OSError) as error:
        raise errors.Unavailable(f"The hub does not answer: {error}.", reason="HUB_UNAVAILABLE") from None
    except ValueError as error:  # the hub reads the model card before it takes anything
        raise errors.InvalidArgument(f"The hub refuses the files: {error}") from None


def _refused(repository: str, status: int, words: str) -> errors.HotloraError:
    """What an answer of the hub means; `words` are its own."""
    if status in _REFUSING:
        return errors.FailedPrecondition(
            f"The hub does not let this token write {repository}; set HF_TOKEN, or run `hf auth login`. "
            + words,
            reason="HUB_TOKEN_REFUSED",
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return errors.Unavailable(f"The hub answers {status}; try later. {words}", reason="HUB_UNAVAILABLE")
    return errors.InvalidArgument(f"The hub refuses {repository} ({status}): {words}")
