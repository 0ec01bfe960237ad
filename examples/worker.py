#!/usr/bin/env python3
"""A worker over gRPC: claims jobs one by one and works on them. README.md says how its stubs are made."""

import os
import sys
import threading
import time

import grpc
from tokenbroker.v1 import automation_jobs_pb2 as pb
from tokenbroker.v1.automation_jobs_pb2_grpc import AutomationJobsStub

KEY = [("authorization", "Bearer " + os.environ["TOKENBROKER_API_KEY"])]
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
jobs = AutomationJobsStub(grpc.insecure_channel(os.environ.get("TOKENBROKER_ADDRESS", "127.0.0.1:7480")))


def work(job, connect_url, tell):
    """What is to be done. Raises where it fails; what it returns is the job's result."""
    tell("opening", 10)
    return {"greeted": job.payload.fields["name"].string_value, "attempt": job.attempt}


def keep(had, lease, over):
    """Beats three times a lease until the work is over, and stops the work once the job is not ours any more."""
    lasts = had.lease_duration.ToTimedelta().total_seconds()
    until = time.monotonic() + lasts
    while not over.wait(lasts / 3):
        sent = time.monotonic()
        try:
            beat = jobs.Heartbeat(pb.HeartbeatRequest(**lease), metadata=KEY, timeout=max(until - sent, 0))
            stop, lasts = beat.cancel, beat.lease_duration.ToTimedelta().total_seconds()
            until = sent + lasts
        except grpc.RpcError as error:  # LEASE_LOST: somebody else has it; out of reach: the next may come through
            stop = error.code() == grpc.StatusCode.FAILED_PRECONDITION
        if (stop or time.monotonic() >= until) and not over.is_set():
            os._exit(1)  # a real worker stops its browser, and calls FailJob where the job was called off


def tell(lease, step, percent):
    jobs.ReportProgress(pb.ReportProgressRequest(**lease, step=step, percent=percent), metadata=KEY, timeout=10)


while True:
    ask = pb.ClaimJobsRequest(worker=f"worker.py:{os.getpid()}", kinds=["greet"], wait={"seconds": 30})
    try:
        claimed = jobs.ClaimJobs(ask, metadata=KEY, timeout=40, wait_for_ready=True).jobs
    except grpc.RpcError as error:
        if error.code() not in PASSING:
            sys.exit(f"ClaimJobs: {error.code().name}: {error.details()}")  # such as a key that may not
        time.sleep(1)
        continue
    for had in claimed:
        lease, over = {"job_id": had.job.id, "lease_token": had.lease_token}, threading.Event()
        threading.Thread(target=keep, args=(had, lease, over), daemon=True).start()
        try:
            result = work(had.job, had.connect_url, lambda step, percent: tell(lease, step, percent))
            end, told = jobs.CompleteJob, pb.CompleteJobRequest(**lease, result=result)
        except Exception as error:  # its type alone: what it says may hold secrets
            end, told = jobs.FailJob, pb.FailJobRequest(**lease, reason="WORKER_ERROR", message=type(error).__name__)
        finally:
            over.set()  # what a heartbeat hears from here on may be that the job has ended
        try:
            end(told, metadata=KEY, timeout=10)
        except grpc.RpcError as error:  # such as LEASE_LOST: somebody else has it by now
            print(had.job.id, error.details(), file=sys.stderr)
