"""Take part in trainings over several nodes: `python -m instpt_assets.training.join host:port`, on each node but the run's own.

It waits for a training at the rendezvous, does this node's share of it, and waits for the next, until it is ended (Ctrl-C or SIGTERM; its
processes end with it). This node needs the same installation as the run's, and the run's files at the same paths.
"""

import sys
import time
from contextlib import suppress

import torch.distributed as dist

from instpt_assets.errors import UserError
from instpt_assets.training.launch import run_processes
from instpt_assets.training.nodes import JoinedNode, Meeting, NodesFailed

_WAIT_SECONDS = 1.0


def serve(rendezvous: str) -> None:
    """Do this node's share of one training after another."""
    past = None
    _tell(f"waiting for trainings at {rendezvous}")
    while True:
        try:
            meeting = Meeting(rendezvous)
            if meeting.id != past:
                past = meeting.id
                node = meeting.join()
                if node is None:
                    _tell("a training has its nodes; waiting for the next")
                else:
                    _work(node)
                    _tell("the training has ended; waiting for the next")
        except NodesFailed as error:
            _tell(f"not joined, waiting for the next training: {error}")
        except (OSError, dist.DistError):
            pass  # nobody is there yet, or no longer
        time.sleep(_WAIT_SECONDS)


def _work(node: JoinedNode) -> None:
    _tell(f"node {node.number} of {node.num_nodes} (the run's is 0): training, for {node.training.job.out}")
    try:
        run_processes(node.training.job, node.torchrun, lambda _: None, node.look)
    except UserError as error:
        _tell(str(error))
        node.fail(str(error))
    except SystemExit:
        node.fail("its command was ended")
        raise
    while node.look() is None:
        time.sleep(_WAIT_SECONDS)
    node.leave()


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) != 2 or ":" not in sys.argv[1]:
        sys.exit("usage: python -m instpt_assets.training.join host:port (make join RENDEZVOUS=host:port)")
    with suppress(KeyboardInterrupt):
        serve(sys.argv[1])
