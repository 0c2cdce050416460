"""Every setting of the service: one frozen tree, read once at the start and passed on as arguments.

Sources, later ones win: defaults, one TOML file, environment variables `CARDSWITCH_SECTION__KEY`. An unknown key in either is
an error: a misspelt limit must not quietly be no limit. Nothing else in this project reads the environment.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from switch.clearing.layouts import LAYOUTS
from switch.domain.errors import ConfigurationError

PREFIX = "CARDSWITCH_"
FILE_VARIABLE = "CARDSWITCH_CONFIG"
DEFAULT_FILE = Path("cardswitch.toml")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _without_zone(cls, value: Any) -> Any:
        if isinstance(value, time) and value.tzinfo is not None:
            raise ValueError("is a time of Shanghai and names no zone")
        return value


class Database(_Section):
    """Where the books are."""

    url: SecretStr = Field(
        SecretStr(""), description="PostgreSQL 15 or newer; empty: embedded, under data_dir"
    )
    shards: int = Field(
        2, ge=1, le=64, description="slices of the card holders; cannot shrink once cards are stored"
    )
    pool_max: int = Field(8, ge=2, le=100, description="connections for sign-ons and look-ups, per process")
    embedded_memory_mb: int = Field(512, ge=64, description="shared_buffers of the embedded server")

    @field_validator("url")
    @classmethod
    def _readable(cls, value: SecretStr) -> SecretStr:
        """Here, since what the driver says of a URL that it cannot read quotes the password."""
        if value.get_secret_value():
            try:
                conninfo_to_dict(value.get_secret_value())
            except psycopg.Error:
                raise ValueError(
                    "is no URL or connection string of PostgreSQL; in a URL's password write % @ : / as %25 %40 %3A %2F"
                ) from None
        return value


class Terminals(_Section):
    """The port of the terminals, and what a stranger may take of us."""

    host: str = Field("127.0.0.1", description="address of the terminals' port")
    port: int = Field(8583, ge=0, le=65535, description="0: any free one")
    processes: int = Field(1, ge=1, le=64, description="serving processes that share the port (SO_REUSEPORT)")
    tls_certificate: Path | None = Field(
        None, description="PEM chain; with it the port speaks TLS 1.2 or newer only"
    )
    tls_key: Path | None = Field(None, description="its private key, PEM; both or neither")
    tls_client_authority: Path | None = Field(
        None, description="terminals must show a certificate of this authority"
    )
    connections_max: int = Field(20_000, ge=1, description="per process; one more is closed at once")
    connections_per_address_max: int = Field(
        20_000, ge=1, description="lower it where terminals do not share addresses"
    )
    in_flight_max: int = Field(64, ge=1, le=10_000, description="unanswered requests of one connection")
    idle_s: float = Field(900.0, gt=0, description="without a byte, then closed")
    partial_frame_s: float = Field(30.0, gt=0, description="a frame once begun must end")
    stranger_s: float = Field(60.0, gt=0, description="until the first good MAC")
    stranger_frames_max: int = Field(
        32, ge=1, description="requests turned away (30, 03, 97, A0) without a good MAC between them"
    )
    key_age_s: float = Field(86_400.0, gt=0, description="working keys serve for at most this long")
    drain_s: float = Field(15.0, ge=0, description="what is in flight at SIGTERM may take this long")

    @model_validator(mode="after")
    def _whole_tls(self) -> "Terminals":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.tls_client_authority is not None and self.tls_certificate is None:
            raise ValueError("tls_client_authority needs tls_certificate")
        return self


class Mqtt(_Section):
    """Terminals over MQTT 5: a broker that is there already. docs/mqtt.md tells terminal makers and the broker's operator the rest."""

    host: str = Field("", description="address of the broker; empty: no MQTT")
    port: int = Field(1883, ge=1, le=65535, description="its port; with TLS usually 8883")
    tls_authority: Path | None = Field(
        None, description="PEM; with it the line is TLS and the broker must show its certificate"
    )
    tls_certificate: Path | None = Field(None, description="PEM chain that we show to the broker")
    tls_key: Path | None = Field(None, description="its private key, PEM; both or neither")
    username: str = Field("", description="of the switch at the broker")
    password_file: Path | None = Field(None, description="its password, one line, mode 600")
    client_id: str = Field(
        "", pattern="^[0-9A-Za-z_.-]{0,60}$", description="another one per service; empty: by the host's name"
    )
    group: str = Field(
        "cardswitch",
        pattern="^[0-9A-Za-z_.-]{1,60}$",
        description="processes of one group share the messages",
    )
    receive_maximum: int = Field(
        256, ge=1, le=65535, description="unacknowledged messages that the broker may send, per process"
    )
    payload_bytes_max: int = Field(
        200_000, ge=192_042, le=1_048_576, description="the broker sends nothing larger"
    )
    keep_alive_s: int = Field(30, ge=5, le=3600, description="a broker that is silent for longer is lost")
    session_s: int = Field(
        30,
        ge=0,
        le=86_400,
        description="what the broker keeps for us when the line breaks, so long; 0: nothing",
    )

    @model_validator(mode="after")
    def _whole(self) -> "Mqtt":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.tls_certificate is not None and self.tls_authority is None:
            raise ValueError("tls_certificate needs tls_authority")
        if self.password_file is not None and not self.username:
            raise ValueError("password_file needs username")
        return self


class Http(_Section):
    """Health and metrics."""

    host: str = Field(
        "127.0.0.1", description="address; health and metrics have no password, so keep it inside"
    )
    port: int = Field(8080, ge=0, le=65535, description="0: any free one")


class Vault(_Section):
    """How the keys are unlocked; exactly one of the three secrets. `cardswitch init` makes a passphrase file."""

    passphrase: SecretStr | None = Field(None, description="for tests; it lies open here")
    passphrase_file: Path | None = Field(None, description="mode 600, at least 12 characters")
    key_file: Path | None = Field(None, description="mode 600, 32 to 4096 random bytes")
    production: bool = Field(False, description="refuse a vault that is marked for rehearsal")


class Institution(_Section):
    """Who we are in messages and files."""

    own_id: str = Field(
        "99993350", pattern="^[0-9]{8}$", description="issuer and operator of the city's cards"
    )
    acquirer_code: str = Field("49993350", pattern="^[0-9]{1,11}$", description="field 32 of answers")
    centre_id: str = Field("99990000", pattern="^[0-9]{8}$", description="sender of clearing files")
    issuer_ids: tuple[str, ...] = Field(
        ("99993350FFFFFFFF",), description="own issuer ids on purse cards, 16 hex digits"
    )

    @field_validator("issuer_ids")
    @classmethod
    def _hex(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if len(text) != 16 or any(char not in "0123456789ABCDEF" for char in text):
                raise ValueError("an issuer id is 16 upper-case hex digits")
        return value


class Ledger(_Section):
    """Bounds of the books, and the rules that are parameters."""

    queue_max: int = Field(
        10_000, ge=1, description="waiting requests per shard and process; one more is answered 96"
    )
    batch_max: int = Field(256, ge=1, le=4096, description="requests of one database transaction")
    no_pin_limit_fen: int = Field(
        0, ge=0, description="up to here a PIN is not asked for; 0: always, where one is set"
    )
    fold_every_s: float = Field(5.0, gt=0, description="hot balances are folded this often")
    days_ahead: int = Field(
        3, ge=1, le=30, description="business days and their partitions are made this far ahead"
    )


class Purse(_Section):
    """Intake of offline records."""

    queue_max: int = Field(20_000, ge=1, description="waiting records per process; one more is answered 96")
    batch_records_max: int = Field(4_096, ge=1, le=8_192, description="records of one database transaction")
    lanes: int = Field(
        2, ge=1, le=16, description="transactions of a process side by side, each with its connection"
    )
    tac_workers: int = Field(
        1,
        ge=0,
        le=64,
        description="processes that check TACs, from the first large upload on; 0: the serving process does",
    )
    risk_every_s: float = Field(300.0, gt=0, description="rules for risk look at new records this often")


class Clearing(_Section):
    """The day's end."""

    folder: Path | None = Field(None, description="where day folders are written; default: data_dir/clearing")
    cut_off: time = Field(time(23, 0), description="Asia/Shanghai")
    auto_close: bool = Field(True, description="the first serving process closes days by itself")
    close_at: time = Field(
        time(1, 0),
        description="then a day is closed though batches of terminals are still open; Asia/Shanghai",
    )
    calendar_file: Path | None = Field(
        None, description="holidays and make-up workdays that override the built-in ones"
    )
    hot_list_for: tuple[str, ...] = Field(
        (), description="acquirers, 8 digits each, that get the hot list (BF, BI) with a day's files"
    )
    sign_files: bool = Field(
        False, description="sign files when they are first written; needs a key of type FSK in the vault"
    )
    parallel_workers: int = Field(
        1, ge=0, le=64, description="processes that PostgreSQL may take for the close beside the first"
    )


class Settlement(_Section):
    """Money in and out."""

    fund_by: time = Field(
        time(10, 0),
        description="until when institutions pay what they owe, on the settlement date; Asia/Shanghai",
    )
    statement_mb_max: int = Field(
        256, ge=1, le=4_096, description="a longer file of the bank is refused; MiB"
    )


class Interop(_Section):
    """Cards of other cities at our merchants, ours elsewhere, and the centre between them."""

    centre_id: str = Field(
        "",
        pattern="^([0-9]{8})?$",
        description="interop centre that gets their records (FH) and sends answers (DT); empty: they wait",
    )
    serve: bool = Field(
        False, description="this installation is that centre; its members are cities of the registry"
    )
    answer_days: int = Field(
        2, ge=0, le=30, description="days after the clearing date until which their city may answer"
    )
    answer_by: time = Field(time(20, 0), description="until when on that day; Asia/Shanghai")
    forward_by: time = Field(
        time(2, 0),
        description="until when on the next day FH must be at the centre; later ones count for another date",
    )
    deliver_by: time = Field(
        time(6, 0), description="until when on the next day the centre sends DF; shown only"
    )
    fund_by: time = Field(
        time(10, 0), description="until when on the settlement date members with a negative net pay"
    )

    @model_validator(mode="after")
    def _named(self) -> "Interop":
        if self.serve and not self.centre_id:
            raise ValueError("serve needs centre_id: the number under which this centre sends")
        return self


SENT_TYPES = tuple(kind for kind in LAYOUTS if kind != "XF")  # that one only comes to us


class PartnerSettings(_Section):
    """One partner who gets files, or leaves some for us, over SFTP. docs/delivery.md tells his engineers the same."""

    name: str = Field(pattern="^[a-z0-9-]{1,32}$", description="as logs, metrics and commands call him")
    parties: tuple[str, ...] = Field(
        min_length=1, description="institutions (8 digits) and merchants (15 characters) whose files he gets"
    )
    types: tuple[str, ...] = Field(SENT_TYPES, description="types of files that he wants; default: all")
    since: date = Field(description="first business date whose files he gets")
    host: str = Field(min_length=1, description="address of his server")
    port: int = Field(22, ge=1, le=65535, description="its port")
    user: str = Field(min_length=1, description="who we are there")
    key_file: Path = Field(description="our private key, mode 600; there are no passwords")
    host_key: str = Field("", description="his server's public key, `ssh-ed25519 AAAA...`")
    known_hosts: Path | None = Field(None, description="or a file that has it; exactly one of the two")
    folder: str = Field(pattern="^/", description="his folder for our files and his receipts")
    outbox: str = Field(
        "", pattern="^(/.*)?$", description="his folder of files for us; empty: he sends none"
    )
    sends: tuple[str, ...] = Field((), description="types of files that he may leave there")
    answers: bool = Field(True, description="he writes .ack and .rej; false: what was sent is done")
    late_hours: int = Field(24, ge=1, le=8760, description="without a file or its receipt, then an alarm")
    fetch_mb_max: int = Field(1024, ge=1, le=65_536, description="nothing larger is fetched")
    connect_s: float = Field(20.0, gt=0, le=300, description="to connect, and to close")
    answer_s: float = Field(60.0, gt=0, le=3600, description="for one step; 256 KiB of a file are one")
    visit_max_s: float = Field(14_400.0, gt=0, le=86_400, description="for a whole visit; the next goes on")
    pause_s: float = Field(30.0, gt=0, le=3600, description="after a failure; doubled each time")
    pause_max_s: float = Field(900.0, gt=0, le=86_400, description="longest of these pauses")

    @field_validator("types", "sends")
    @classmethod
    def _types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not set(value) <= set(LAYOUTS):  # nothing else would ever say so
            raise ValueError(f"types of files are {', '.join(LAYOUTS)}")
        return value

    @model_validator(mode="after")
    def _known(self) -> "PartnerSettings":
        if bool(self.host_key) == (self.known_hosts is not None):
            raise ValueError(
                "give exactly one of host_key and known_hosts: an unknown server is sent nothing"
            )
        if self.folder.rstrip("/") == self.outbox.rstrip("/"):
            raise ValueError("folder and outbox must differ: receipts of both sides would meet")
        if self.pause_s > self.pause_max_s:
            raise ValueError("a shortest pause must not be longer than the longest")
        return self


class Delivery(_Section):
    """Files to partners and from them."""

    every_s: float = Field(30.0, gt=0, le=3600, description="partners are visited this often")
    service: bool = Field(
        True, description="serve starts a process that delivers; false: `cardswitch deliver` runs on its own"
    )
    partners: tuple[PartnerSettings, ...] = Field((), description="one table [[delivery.partners]] each")

    @field_validator("partners")
    @classmethod
    def _once(cls, value: tuple[PartnerSettings, ...]) -> tuple[PartnerSettings, ...]:
        if len({partner.name for partner in value}) < len(value):
            raise ValueError("two partners have the same name")
        return value


class Disputes(_Section):
    """Cases about transactions."""

    auto_accept: bool = Field(
        False, description="what members ask for by file within limits and states needs no checker here"
    )
    evidence_folder: Path | None = Field(
        None, description="where files of evidence are kept; default: data_dir/evidence"
    )
    evidence_files_max: int = Field(20, ge=1, le=100, description="files of one case")
    evidence_mb_max: int = Field(10, ge=1, le=100, description="megabytes of one file")
    evidence_total_mb_max: int = Field(10_240, ge=1, description="megabytes of all files together")


class HostSettings(_Section):
    """One host: where it is, how it speaks, and what it may take of us. docs/host-link.md tells a bank the same."""

    name: str = Field(pattern="^[a-z0-9-]{1,32}$", description="as routes, logs and metrics call it")
    institution: str = Field(pattern="^[0-9]{8,11}$", description="field 100, and the owner of its keys")
    host: str = Field(description="its address")
    port: int = Field(ge=1, le=65535, description="its port")
    dialect: str = Field("bcd", pattern="^(ascii|bcd)$", description="ascii or bcd, section 2")
    mac_id: int = Field(5, ge=1, le=5, description="MAC algorithm; its keys are of the same cipher")
    connections: int = Field(2, ge=1, le=64, description="per process")
    in_flight_max: int = Field(1_000, ge=2, le=100_000, description="unanswered requests, per process")
    answer_s: float = Field(15.0, gt=0, le=45, description="time-out; terminals give up at 60")
    connect_s: float = Field(5.0, gt=0, le=60, description="to connect")
    network_answer_s: float = Field(10.0, gt=0, le=60, description="for sign-on, echo, sign-off, key change")
    quiet_s: float = Field(30.0, gt=0, le=3600, description="without a message, then an echo")
    reconnect_min_s: float = Field(
        0.2, gt=0, le=60, description="first pause before connecting again; doubled"
    )
    reconnect_max_s: float = Field(30.0, gt=0, le=3600, description="longest pause")
    breaker_failures: int = Field(
        10, ge=1, le=10_000, description="unknown ends among twice as many; then it opens"
    )
    breaker_open_s: float = Field(2.0, gt=0, le=3600, description="first pause; doubled by each bad probe")
    breaker_open_max_s: float = Field(60.0, gt=0, le=3600, description="longest pause")
    breaker_probes: int = Field(3, ge=1, le=1000, description="good answers in half-open that close it")
    retry_ratio: float = Field(0.2, ge=0, le=10, description="repeats that an answer pays for")
    retry_per_s: float = Field(10.0, ge=0, description="repeats that a second pays for")
    retry_saved_max: float = Field(100.0, ge=1, description="repeats that may be saved up")
    stand_in_amount_fen: int = Field(
        0,
        ge=0,
        description="a purchase up to this is approved while the host cannot be asked; 0: none. Never one with a PIN",
    )
    stand_in_outstanding_fen: int = Field(
        0,
        ge=0,
        description="sum of such that the host has not confirmed yet; each shard has an equal part",
    )
    stand_in_outstanding_count: int = Field(0, ge=0, description="number of such, likewise")
    forward_in_flight_max: int = Field(
        256,
        ge=1,
        le=10_000,
        description="unanswered messages from the outbox, per process; never above half of in_flight_max",
    )
    forward_per_s: float = Field(
        1_200.0,
        ge=1,
        le=100_000,
        description="messages from the outbox in a second, per process; lower where a host that comes back must be spared",
    )
    forward_pause_s: float = Field(
        1.0, gt=0, le=3600, description="before an unconfirmed message is sent again; doubled each time"
    )
    forward_pause_max_s: float = Field(300.0, gt=0, le=86_400, description="longest of these pauses")

    @model_validator(mode="after")
    def _ordered(self) -> "HostSettings":
        pauses = (
            (self.reconnect_min_s, self.reconnect_max_s),
            (self.breaker_open_s, self.breaker_open_max_s),
            (self.forward_pause_s, self.forward_pause_max_s),
        )
        if any(shortest > longest for shortest, longest in pauses):
            raise ValueError("a shortest pause must not be longer than the longest")
        return self


class Hosts(_Section):
    """Banks and the social-security centre that decide themselves."""

    links: tuple[HostSettings, ...] = Field((), description="one table [[hosts.links]] each")

    @field_validator("links")
    @classmethod
    def _once(cls, value: tuple[HostSettings, ...]) -> tuple[HostSettings, ...]:
        if len({link.name for link in value}) < len(value):
            raise ValueError("two hosts have the same name")
        return value


class ComparedPartner(_Section):
    """A bank or city whose file about the items it owes us is compared with our books. docs/reconciliation.md tells the partner the rest."""

    institution: str = Field(pattern="^[0-9]{8}$", description="the sender of its files")
    since: date = Field(description="first business date of which it owes a file")
    file_days: int = Field(
        1, ge=0, le=30, description="days after the business date until which it must come"
    )
    file_by: time = Field(time(9), description="until when on that day; Asia/Shanghai")
    tolerance_fen: int = Field(
        0, ge=0, le=10_000, description="amounts that differ by no more are listed and closed; 0: none"
    )
    roll_days: int = Field(
        1,
        ge=0,
        le=1,
        description="1: what one side lacks may come with the next day's file; 0: it is an error",
    )
    holds_money: bool = Field(
        False,
        description="whether payouts of a date are ordered only when it is compared and nothing is open",
    )


class Reconcile(_Section):
    """Partners whose files are compared with our books."""

    partners: tuple[ComparedPartner, ...] = Field((), description="one table [[reconcile.partners]] each")

    @field_validator("partners")
    @classmethod
    def _once(cls, value: tuple[ComparedPartner, ...]) -> tuple[ComparedPartner, ...]:
        if len({partner.institution for partner in value}) < len(value):
            raise ValueError("two partners have the same institution")
        return value


class Telemetry(_Section):
    """What is written down about the service itself."""

    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error"
    )
    log_transactions: bool = Field(False, description="one line per answered request")


class Settings(_Section):
    """All of them. data_dir holds the embedded database, its socket, the vault's passphrase file and the files of the day."""

    data_dir: Path = Field(
        Path("var"), description="embedded database, vault passphrase of init, clearing files"
    )
    database: Database = Database()
    terminals: Terminals = Terminals()
    mqtt: Mqtt = Mqtt()
    http: Http = Http()
    vault: Vault = Vault()
    institution: Institution = Institution()
    ledger: Ledger = Ledger()
    purse: Purse = Purse()
    clearing: Clearing = Clearing()
    delivery: Delivery = Delivery()
    interop: Interop = Interop()
    settlement: Settlement = Settlement()
    disputes: Disputes = Disputes()
    hosts: Hosts = Hosts()
    reconcile: Reconcile = Reconcile()
    telemetry: Telemetry = Telemetry()

    @property
    def clearing_folder(self) -> Path:
        """Where day folders are written."""
        return self.clearing.folder or self.data_dir / "clearing"

    @property
    def evidence_folder(self) -> Path:
        """Where files of evidence are kept."""
        return self.disputes.evidence_folder or self.data_dir / "evidence"

    @property
    def default_passphrase_file(self) -> Path:
        """Where `cardswitch init` puts a generated passphrase."""
        return self.data_dir / "vault.passphrase"

    @property
    def unlock(self) -> Vault:
        """The vault section, with the generated passphrase file where nothing else is set."""
        vault = self.vault
        if vault.passphrase is None and vault.passphrase_file is None and vault.key_file is None:
            return vault.model_copy(update={"passphrase_file": self.default_passphrase_file})
        return vault


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name == FILE_VARIABLE:
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        if path == ["data_dir"]:
            tree["data_dir"] = value
        elif len(path) == 2:
            tree.setdefault(path[0], {})[path[1]] = _listed(path, value)
        else:
            raise ConfigurationError(f"environment variable {name}: not of the form {PREFIX}SECTION__KEY")
    return tree


def _listed(path: list[str], value: str) -> Any:
    if path in (["hosts", "links"], ["delivery", "partners"], ["reconcile", "partners"]):
        try:
            return json.loads(value)
        except ValueError:
            name = PREFIX + "__".join(path).upper()
            raise ConfigurationError(f"environment variable {name}: not JSON") from None
    lists = (["institution", "issuer_ids"], ["clearing", "hot_list_for"])
    return tuple(value.split(",")) if path in lists else value


def chosen_file(file: Path | None = None, environment: Mapping[str, str] | None = None) -> Path | None:
    """The settings file that is read: the one named, else ./cardswitch.toml if it is there."""
    environment = os.environ if environment is None else environment
    if file is not None:
        return file
    if environment.get(FILE_VARIABLE):
        return Path(environment[FILE_VARIABLE])
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def _from_file(file: Path | None, environment: Mapping[str, str]) -> tuple[dict[str, Any], Path | None]:
    chosen = chosen_file(file, environment)
    if chosen is None:
        return {}, None
    try:
        return tomllib.loads(chosen.read_text(encoding="utf-8")), chosen
    except OSError as error:
        raise ConfigurationError(f"settings file {chosen}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"settings file {chosen}: {error}") from error


def load_settings(file: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. ConfigurationError names each key that is wrong and the rule it breaks, never a secret value."""
    return load_with_origins(file, environment)[0]


def load_with_origins(
    file: Path | None = None, environment: Mapping[str, str] | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings, and for each key that is not a default where it came from."""
    environment = os.environ if environment is None else environment
    from_file, chosen = _from_file(file, environment)
    from_environment = _from_environment(environment)
    origins: dict[str, str] = {}
    merged: dict[str, Any] = {}
    for source, tree in ((str(chosen), from_file), ("environment", from_environment)):
        for key, value in tree.items():
            if isinstance(value, dict):
                section = merged.setdefault(key, {})
                if not isinstance(section, dict):
                    raise ConfigurationError(f"settings: {key}: must be a section")
                section.update(value)
                origins.update({f"{key}.{inner}": source for inner in value})
            else:
                merged[key] = value
                origins[key] = source
    try:
        return Settings.model_validate(merged), origins
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("settings: " + "; ".join(problems)) from None
