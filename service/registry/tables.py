"""Tables of the newest schema. The migrations make them; a test proves that both agree.

States, techniques and bodies are text: what they may hold is decided by the types in `rows` and `states`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Ordinal = BigInteger().with_variant(Integer, "sqlite")
"""Order of creation. SQLite numbers rows by itself only in a column of type INTEGER."""

datasets = Table(
    "datasets",
    metadata,
    Column("ordinal", Ordinal, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("display_name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("longest_row_tokens", Integer, nullable=False),
    Column("create_time", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("task", Text),
    Column("report", Text),
    # That rendered and counted the rows; empty: nobody wrote it down.
    Column("base_model", Text, nullable=False, server_default=""),
    # Set: deleted. The row stays, so that the id is never given out again.
    Column("delete_time", Float),
    sqlite_autoincrement=True,
)

adapters = Table(
    "adapters",
    metadata,
    Column("id", Text, primary_key=True),
    Column("base_model", Text, nullable=False),
    Column("latest_version", Integer, nullable=False),
    Column("create_time", Float, nullable=False),
    Column("delete_time", Float),
)

jobs = Table(
    "jobs",
    metadata,
    Column("ordinal", Ordinal, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("request_id", Text, unique=True),
    Column("request_digest", Text, nullable=False),
    Column("base_model", Text, nullable=False),
    Column("dataset_id", Text, ForeignKey("datasets.id"), nullable=False),
    Column("adapter_id", Text, ForeignKey("adapters.id"), nullable=False),
    Column("technique", Text, nullable=False),
    Column("objective", Text, nullable=False, server_default="supervised"),
    Column("hyperparameters", Text, nullable=False),
    Column("warnings", Text, nullable=False, server_default="[]"),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("owner", Text),
    Column("heartbeat_time", Float),
    Column("failure_reason", Text),
    Column("failure_message", Text),
    Column("latest_metrics", Text),
    Column("fit", Text),
    Column("best_step", Integer, nullable=False, server_default="0"),
    # ADAPTER@NUMBER
    Column("start_version", Text),
    Column("version_number", Integer),
    Column("evaluation_dataset_id", Text),
    Column("evaluation_id", Text),
    Column("last_sequence", BigInteger, nullable=False),
    Column("create_time", Float, nullable=False),
    Column("start_time", Float),
    Column("first_forward_time", Float),
    Column("first_step_time", Float),
    Column("end_time", Float),
    Index(None, "state", "ordinal"),
    Index(None, "adapter_id", "ordinal"),
    Index(None, "dataset_id", "state"),
    sqlite_autoincrement=True,
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("time", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("adapter_id", Text, ForeignKey("adapters.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("failure_reason", Text),
    Column("failure_message", Text),
    # None: it was imported.
    Column("job_id", Text, ForeignKey("jobs.id"), unique=True),
    Column("technique", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("verification", Text),
    Column("create_time", Float, nullable=False),
    Column("active_time", Float),
    Column("epoch", Integer, nullable=False),
    Index(None, "state"),
)

version_changes = Table(
    "version_changes",
    metadata,
    Column("adapter_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("message", Text),
    ForeignKeyConstraint(["adapter_id", "number"], ["versions.adapter_id", "versions.number"]),
)

aliases = Table(
    "aliases",
    metadata,
    Column("adapter_id", Text, ForeignKey("adapters.id"), primary_key=True),
    Column("id", Text, primary_key=True),
    # Of the change that says where it points.
    Column("revision", Integer, nullable=False),
    Column("is_gated", Boolean, nullable=False),
    Column("create_time", Float, nullable=False),
)

alias_changes = Table(
    "alias_changes",
    metadata,
    Column("adapter_id", Text, primary_key=True),
    Column("alias_id", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("author", Text, nullable=False),
    # JSON: [[version, percent], ...]. Empty: the alias was deleted.
    Column("shares", Text, nullable=False),
    # The revision that a rollback comes back to.
    Column("returns_to", Integer),
    Column("is_forced", Boolean, nullable=False),
    # From then on. None: from before this was recorded.
    Column("is_gated", Boolean),
    ForeignKeyConstraint(["adapter_id", "alias_id"], ["aliases.adapter_id", "aliases.id"]),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("ordinal", Ordinal, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("request_id", Text, unique=True),
    Column("request_digest", Text, nullable=False),
    Column("adapter_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    # None: its version was imported.
    Column("job_id", Text, ForeignKey("jobs.id")),
    Column("dataset_id", Text, nullable=False),
    Column("from_validation_split", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("owner", Text),
    Column("heartbeat_time", Float),
    Column("failure_reason", Text),
    Column("failure_message", Text),
    Column("done_answers", Integer, nullable=False),
    Column("total_answers", Integer, nullable=False),
    Column("report", Text),
    Column("create_time", Float, nullable=False),
    Column("start_time", Float),
    Column("end_time", Float),
    ForeignKeyConstraint(["adapter_id", "number"], ["versions.adapter_id", "versions.number"]),
    Index(None, "adapter_id", "number"),
    Index(None, "state", "ordinal"),
    sqlite_autoincrement=True,
)

evaluation_answers = Table(
    "evaluation_answers",
    metadata,
    # Revision of a base, or digest of a version: the same weights give the same greedy answer.
    Column("model", Text, primary_key=True),
    # Digest of what was asked, and how.
    Column("key", Text, primary_key=True),
    Column("body", Text, nullable=False),
)
