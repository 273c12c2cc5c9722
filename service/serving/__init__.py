"""Serving: versions brought into the engine and proven there, and answers from what was proven."""

from service.serving.bases import Base, Bases
from service.serving.chat import Chat
from service.serving.disposal import Disposal
from service.serving.outcomes import Outcomes
from service.serving.own_engine import Means
from service.serving.own_engines import OwnEngines
from service.serving.proof import Prover
from service.serving.reconciler import Reconciler
from service.serving.reconcilers import Reconcilers
from service.serving.replicas import Replica, Replicas
from service.serving.routes import Routes
from service.serving.served import Served
from service.serving.strays import Strays
from service.serving.turn import ChatDelta, ChatMessage, ChatTurn, FinishReason, ServedModel, Serving

__all__ = [
    "Base",
    "Bases",
    "Chat",
    "ChatDelta",
    "ChatMessage",
    "ChatTurn",
    "Disposal",
    "FinishReason",
    "Means",
    "Outcomes",
    "OwnEngines",
    "Prover",
    "Reconciler",
    "Reconcilers",
    "Replica",
    "Replicas",
    "Routes",
    "Served",
    "ServedModel",
    "Serving",
    "Strays",
]
