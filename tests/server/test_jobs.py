"""The queue of pictures and the workers that empty it."""

import threading

import numpy as np

from llie.errors import UserError
from llie.server.jobs import Job, JobQueue, Settings
from tests.server.conftest import Failing
from tests.server.test_enhance import dark


def test_one_bad_picture_does_not_spoil_its_batch(service):
    one = service(Failing(UserError("too dark")))
    white, jobs = np.full((4, 4, 3), 255, np.uint8), []
    for pixels in (white * 0, white, white * 0):
        jobs.append(Job(pixels, Settings("first")))
        one._jobs.put(jobs[-1])
    one.start()
    one.close()
    assert np.array_equal(jobs[1].result.result(600), white)
    assert [type(job.result.exception(600)) for job in jobs] == [UserError, type(None), UserError]


def test_workers_end_with_the_queue():
    queue = JobQueue(4)
    got = []
    thread = threading.Thread(target=lambda: got.append(queue.take()))
    thread.start()
    queue.close()
    thread.join(600)
    assert got == [[]]


def test_a_job_that_was_cancelled_is_left_out():
    queue = JobQueue(4)
    jobs = [Job(dark(), Settings("first")) for _ in range(3)]
    for job in jobs:
        queue.put(job)
    jobs[1].result.cancel()
    assert queue.take() == [jobs[0], jobs[2]]


def test_large_pictures_are_no_batch():
    queue = JobQueue(4)
    jobs = [Job(np.zeros((1000, 1500, 3), np.uint8), Settings("first")) for _ in range(2)]
    for job in jobs:
        queue.put(job)
    assert queue.take() == jobs[:1]


def test_a_picture_without_pixels_harms_nobody():
    """Whatever gets into the queue, the worker must not end."""
    queue = JobQueue(4)
    job = Job(np.zeros((24, 0, 3), np.uint8), Settings("first"))
    queue.put(job)
    assert queue.take() == [job]
