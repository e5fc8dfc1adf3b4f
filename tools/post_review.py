"""Show review/review.md in the summary of a CI job, and in one comment of the pull request or merge request.

    python tools/post_review.py

On GitHub, GITHUB_TOKEN is the token of the job. On GitLab, REVIEW_TOKEN is an access token with the scope `api`. The comment of
an earlier run is replaced. Without a token that may comment, as on a pull request from a fork, the exit status is 0.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))

from review_page import MARKER
from rlhf_sentiment.engine.errors import StageError, one_line_errors

PAGE = Path("review/review.md")
_LONGEST = 60_000  # characters; GitHub takes 65,536
_PER_PAGE = 100


class Service(NamedTuple):
    """Where the comments of one pull request or merge request are.

    Attributes:
        comments: the address that lists comments, and takes a new one.
        comment: the address of one comment, with `{}` for its number.
        edit: the HTTP method that replaces a comment.
        headers: the HTTP headers with the token.
    """

    comments: str
    comment: str
    edit: str
    headers: dict[str, str]


def main() -> None:
    """Write the summary and the comment."""
    with one_line_errors("post-review"):
        if not PAGE.is_file():
            raise StageError(f"{PAGE} is missing; run `make review BASE=main` first")
        page = PAGE.read_text(encoding="utf-8")
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with open(summary, "a", encoding="utf-8") as file:
                file.write(page)
        where = service(os.environ)
        if where is None:
            print("post-review: no comment, as this is no pull request or there is no token")
            return
        print(f"post-review: {post(where, page)}")


def service(variables: Any) -> Service | None:
    """Return where to comment, from the environment variables of a CI job, or None outside a pull request."""
    get = variables.get
    if get("GITHUB_TOKEN") and (number := _pull_request(get("GITHUB_EVENT_PATH", ""))):
        issues = f"{get('GITHUB_API_URL')}/repos/{get('GITHUB_REPOSITORY')}/issues"
        headers = {"Authorization": f"Bearer {get('GITHUB_TOKEN')}", "Accept": "application/vnd.github+json"}
        return Service(f"{issues}/{number}/comments", f"{issues}/comments/{{}}", "PATCH", headers)
    if get("REVIEW_TOKEN") and get("CI_MERGE_REQUEST_IID"):
        notes = f"{get('CI_API_V4_URL')}/projects/{get('CI_PROJECT_ID')}/merge_requests/{get('CI_MERGE_REQUEST_IID')}/notes"
        return Service(notes, f"{notes}/{{}}", "PUT", {"PRIVATE-TOKEN": get("REVIEW_TOKEN")})
    return None


def _pull_request(event: str) -> int | None:
    if not Path(event).is_file():
        return None
    return json.loads(Path(event).read_text(encoding="utf-8")).get("pull_request", {}).get("number")


def post(where: Service, page: str) -> str:
    """Replace the comment of an earlier run, or add one. Return what was done.

    Raises:
        StageError: the service answers with an error that is not about permissions, or does not answer.
    """
    body = page if len(page) <= _LONGEST else f"{page[:_LONGEST]}\n\nThe rest is in the artifact `review`."
    try:
        number = _earlier(where)
        if number is None:
            _request(where, "POST", where.comments, body)
            return "added a comment"
        _request(where, where.edit, where.comment.format(number), body)
        return "replaced the comment of an earlier run"
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return f"no comment, as the token may not comment (HTTP {error.code})"
        raise StageError(f"{where.comments}: HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise StageError(f"{where.comments}: {error.reason}") from None


def _earlier(where: Service) -> int | None:
    """Return the number of the comment of an earlier run."""
    page = 1
    while comments := _request(where, "GET", f"{where.comments}?per_page={_PER_PAGE}&page={page}"):
        for comment in comments:
            # A person may quote the page, marker included. GitLab does not say who is a bot.
            if str(comment["body"]).startswith(MARKER) and comment.get("user", {}).get("type", "Bot") == "Bot":
                return comment["id"]
        page += 1
    return None


def _request(where: Service, method: str, address: str, body: str | None = None) -> Any:
    data = None if body is None else json.dumps({"body": body}).encode()
    headers = where.headers | {"Content-Type": "application/json"}
    request = urllib.request.Request(address, data, headers, method=method)  # noqa: S310 (the address of the CI service)
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


if __name__ == "__main__":
    main()
