#!/usr/bin/env python3
"""A worker over gRPC: claims jobs one by one and works on them. README.md says how its stubs are made."""

import os
import sys
import threading

import grpc
from tokenbroker.v1 import automation_jobs_pb2 as pb
from tokenbroker.v1.automation_jobs_pb2_grpc import AutomationJobsStub

KEY = [("authorization", "Bearer " + os.environ["TOKENBROKER_API_KEY"])]
jobs = AutomationJobsStub(grpc.insecure_channel(os.environ.get("TOKENBROKER_ADDRESS", "127.0.0.1:7480")))


def work(job, connect_url, tell):
    """What is to be done. Raises where it fails; what it returns is the job's result."""
    tell("opening", 10)
    return {"greeted": job.payload.fields["name"].string_value, "attempt": job.attempt}


def beat(had, lease, over):
    while not over.wait(had.lease_duration.ToTimedelta().total_seconds() / 3):
        try:
            stop = jobs.Heartbeat(pb.HeartbeatRequest(**lease), metadata=KEY, timeout=10).cancel
        except grpc.RpcError as error:  # out of reach: the next may come through; LEASE_LOST: somebody else has it
            stop = error.code() == grpc.StatusCode.FAILED_PRECONDITION
        if stop:
            os._exit(1)  # a real worker stops its browser, and calls FailJob where the job was called off


def tell(lease, step, percent):
    jobs.ReportProgress(pb.ReportProgressRequest(**lease, step=step, percent=percent), metadata=KEY, timeout=10)


while True:
    ask = pb.ClaimJobsRequest(worker=f"worker.py:{os.getpid()}", kinds=["greet"], wait={"seconds": 30})
    for had in jobs.ClaimJobs(ask, metadata=KEY, timeout=40, wait_for_ready=True).jobs:
        lease, over = {"job_id": had.job.id, "lease_token": had.lease_token}, threading.Event()
        threading.Thread(target=beat, args=(had, lease, over), daemon=True).start()
        try:
            result = work(had.job, had.connect_url, lambda step, percent: tell(lease, step, percent))
            jobs.CompleteJob(pb.CompleteJobRequest(**lease, result=result), metadata=KEY, timeout=10)
        except grpc.RpcError as error:  # such as LEASE_LOST: somebody else has it by now
            print(had.job.id, error.details(), file=sys.stderr)
        except Exception as error:  # its type alone: what it says may hold secrets
            failed = pb.FailJobRequest(**lease, reason="WORKER_ERROR", message=type(error).__name__)
            jobs.FailJob(failed, metadata=KEY, timeout=10)
        over.set()
