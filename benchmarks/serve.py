"""`llie serve` under load: latency, throughput and memory, and that every request gets the answer it should get.

    python benchmarks/serve.py [--requests 1000] [--clients 1 8] [--size 160x120] [--bad 0.05]

Starts a server on a free port of this machine, which clients in this process ask at once. A share of what they send is
bad: no image, half an image, a decompression bomb, a wrong parameter, nothing. Baseline: the same pictures read,
enhanced and written one after another in this process, without a server.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import httpx
import numpy as np
import torch

import llie
from llie.data.decoding import decode
from llie.inference.photo import decode_photo


class Request(NamedTuple):
    query: str
    content: bytes
    status: int


def requests(count: int, bad: float, width: int, height: int) -> list[Request]:
    """Pictures of a few kinds, and bad requests evenly among them."""
    random = np.random.default_rng(0)
    smooth = random.integers(0, 90, (8, 8, 3), dtype=np.uint8)
    picture = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC)
    good = [cv2.imencode(kind, np.roll(picture, n, 1))[1].tobytes() for n in range(8) for kind in (".jpg", ".png")]
    bomb = cv2.imencode(".png", np.zeros((20000, 20000), np.uint8))[1].tobytes()
    wrong = [
        Request("", b"no image at all", 415),
        Request("", good[0][: len(good[0]) // 2], 422),
        Request("", bomb, 413),
        Request("?strength=2", good[0], 422),
        Request("", b"", 422),
    ]
    every = round(1 / bad) if bad else count + 1
    return [
        wrong[n // every % len(wrong)] if n % every == every - 1 else Request("", good[n % len(good)], 200)
        for n in range(count)
    ]


def ask(client: httpx.Client, request: Request) -> float:
    """Seconds until the answer, which must be the right one."""
    start = time.perf_counter()
    answer = client.post("/enhance" + request.query, content=request.content)
    seconds = time.perf_counter() - start
    assert answer.status_code == request.status, (answer.status_code, answer.text[:200], request.status)
    if request.status == 200:
        assert decode(answer.content, "answer").pixels.shape == decode(request.content, "request").pixels.shape
    else:
        assert answer.json()["error"]
    return seconds


def metric(client: httpx.Client, pattern: str) -> float:
    """The sum of the values whose names match."""
    values = re.findall(rf"^{pattern} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, values))


def memory(client: httpx.Client) -> float:
    return metric(client, "process_resident_memory_bytes") / 2**20


def alone(work: list[Request]) -> float:
    """Pictures per second without a server."""
    enhance = llie.load(device="cpu")
    good = [request.content for request in work if request.status == 200][:50]
    for count in (5, len(good)):
        start = time.perf_counter()
        for content in good[:count]:
            photo = decode_photo(content, "a")
            photo.encode(enhance(photo.pixels), Path("a.png" if content[:1] == b"\x89" else "a.jpg"))
    return len(good) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--size", default="160x120")
    parser.add_argument("--bad", type=float, default=0.05, help="share of bad requests")
    words = parser.parse_args()
    work = requests(words.requests, words.bad, *map(int, words.size.split("x")))
    pictures = sum(request.status == 200 for request in work)
    baseline = alone(work)
    print(f"{words.size}, {torch.get_num_threads()} threads; alone: {baseline:.1f} pictures per second", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "llie", "serve", "--device", "cpu", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    try:
        print("| clients | p50 | p95 | pictures per second | ratio to alone | memory after 10 %, 50 %, 100 % |")
        print("|---|---|---|---|---|---|")
        with httpx.Client(base_url=address, timeout=120) as client:
            for count in words.clients:
                before = metric(client, r'llie_requests_total\{path="/enhance".*\}')
                seconds, used = [], []
                start = time.perf_counter()
                with ThreadPoolExecutor(count) as pool:
                    for done, taken in enumerate(pool.map(lambda request: ask(client, request), work), 1):
                        seconds.append(taken)
                        if done in (len(work) // 10, len(work) // 2, len(work)):
                            used.append(memory(client))
                speed = pictures / (time.perf_counter() - start)
                answered = metric(client, r'llie_requests_total\{path="/enhance".*\}') - before
                assert len(seconds) == answered == len(work), "an answer was lost"
                p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
                memories = ", ".join(f"{value:.0f}" for value in used)
                print(
                    f"| {count} | {1000 * p50:.0f} ms | {1000 * p95:.0f} ms | {speed:.1f} | {speed / baseline:.2f} "
                    f"| {memories} MiB |",
                    flush=True,
                )
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
    print(f"every answer was right: {pictures} pictures and {len(work) - pictures} errors for each row")


if __name__ == "__main__":
    main()
