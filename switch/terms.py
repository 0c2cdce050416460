"""Settings in the words of the rooms that work by them, so that no room knows the settings."""

import socket
import ssl

from switch.clearing.reconcile.expected import Due
from switch.domain.errors import ConfigurationError
from switch.ledger.leg_state import StandInTerms
from switch.messages.host_1987 import DIALECTS
from switch.messages.host_mapping import Parties
from switch.routing.advices import BackOff
from switch.routing.forwarding import ForwardTerms
from switch.routing.host_desk import HostTerms
from switch.settings import HostSettings, Settings
from switch.transports.breaker import BreakerTerms
from switch.transports.host_terms import LinkTerms
from switch.transports.mqtt_line import LineTerms
from switch.transports.mqtt_terminals import MqttTerms
from switch.transports.tcp_terminals import Limits


def terminal_limits(settings: Settings) -> Limits:
    """What terminals' connections may do."""
    at = settings.terminals
    return Limits(
        connections_max=at.connections_max,
        connections_per_address_max=at.connections_per_address_max,
        in_flight_max=at.in_flight_max,
        idle_s=at.idle_s,
        partial_frame_s=at.partial_frame_s,
        stranger_s=at.stranger_s,
        stranger_frames_max=at.stranger_frames_max,
    )


def partner_dues(settings: Settings) -> list[Due]:
    """Which partners owe files, and until when."""
    return [
        Due(one.institution, one.since, one.file_days, one.file_by) for one in settings.reconcile.partners
    ]


def mqtt_terms(settings: Settings, worker: int = 0) -> MqttTerms:
    """The line to the broker of process `worker`. ConfigurationError: a file that it names cannot be used."""
    at = settings.mqtt
    password, tls = "", None
    try:
        if at.password_file is not None:
            password = at.password_file.read_text(encoding="utf-8").strip()
        if at.tls_authority is not None:
            tls = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(at.tls_authority))
            tls.minimum_version = ssl.TLSVersion.TLSv1_2
            if at.tls_certificate is not None and at.tls_key is not None:
                tls.load_cert_chain(str(at.tls_certificate), str(at.tls_key))
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigurationError(f"mqtt: a file cannot be used: {error.__class__.__name__}") from error
    line = LineTerms(
        host=at.host,
        port=at.port,
        client_id=f"{at.client_id or 'cardswitch-' + socket.gethostname()}-{worker}",
        username=at.username,
        password=password,
        tls=tls,
        receive_maximum=at.receive_maximum,
        payload_bytes_max=at.payload_bytes_max,
        keep_alive_s=at.keep_alive_s,
        session_s=at.session_s,
    )
    return MqttTerms(line, at.group)


def host_terms(at: HostSettings, shards: int) -> HostTerms:
    """What we may approve in a host's place is dealt out to the shards, which do not wait for each other."""
    stand_in = None
    if at.stand_in_amount_fen:
        stand_in = StandInTerms(
            at.stand_in_amount_fen,
            at.stand_in_outstanding_fen // shards,
            at.stand_in_outstanding_count // shards,
        )
    return HostTerms(at.name, at.institution, at.answer_s, stand_in)


def link_terms(at: HostSettings, acquirer: str) -> LinkTerms:
    """The connections to a host. acquirer: how we call ourselves on them."""
    return LinkTerms(
        name=at.name,
        host=at.host,
        port=at.port,
        dialect=DIALECTS[at.dialect],
        parties=Parties(acquirer, at.institution),
        connections=at.connections,
        in_flight_max=at.in_flight_max,
        answer_s=at.answer_s,
        connect_s=at.connect_s,
        network_answer_s=at.network_answer_s,
        quiet_s=at.quiet_s,
        reconnect_min_s=at.reconnect_min_s,
        reconnect_max_s=at.reconnect_max_s,
        breaker=BreakerTerms(
            at.breaker_failures, at.breaker_open_s, at.breaker_open_max_s, at.breaker_probes
        ),
        retry_ratio=at.retry_ratio,
        retry_per_s=at.retry_per_s,
        retry_saved_max=at.retry_saved_max,
    )


def forward_terms(at: HostSettings) -> ForwardTerms:
    """What may be on its way to a host out of the outbox."""
    return ForwardTerms(
        answer_s=at.answer_s,
        # The link takes no more of stored messages than half of its room: the other half is for people who wait at a till.
        in_flight_max=max(min(at.forward_in_flight_max, at.in_flight_max // 2), 1),
        back_off=BackOff(at.forward_pause_s, at.forward_pause_max_s),
        per_s=at.forward_per_s,
    )
