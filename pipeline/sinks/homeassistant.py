"""What Home Assistant is told of a source, so that it knows it by itself: its "MQTT discovery". Builds messages only.

A device is a source. It has a sensor for each class that is counted, and one for whether its signal comes. A count is
not available while the source is anything but live, or the run has gone: nobody knows then how many there are.
"""

import re
from hashlib import sha256

import msgspec

ROOT = "homeassistant"
CONNECTED = ("live", "frozen", "grey")


def connectivity(prefix: str, source_id: str) -> tuple[str, bytes]:
    """Topic and message of the binary sensor."""
    config = _common(prefix, source_id, "signal") | {
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "name": "signal",
        "state_topic": f"{prefix}/{source_id}/state",
        "value_template": f"{{{{ 'ON' if value in {list(CONNECTED)} else 'OFF' }}}}",
    }
    return _topic("binary_sensor", config), msgspec.json.encode(config)


def class_count(prefix: str, source_id: str, class_name: str, topic: str) -> tuple[str, bytes]:
    """Of the sensor of a class that is counted on `topic`."""
    config = _common(prefix, source_id, f"count_{class_name}")
    live = {
        "topic": f"{prefix}/{source_id}/state",
        "value_template": "{{ 'online' if value == 'live' else 'offline' }}",
    }
    config |= {
        "name": class_name,
        "state_topic": topic,
        "state_class": "measurement",
        "availability": [*config["availability"], live],
        "availability_mode": "all",
    }
    return _topic("sensor", config), msgspec.json.encode(config)


def _common(prefix: str, source_id: str, what: str) -> dict:
    device = _id(f"{prefix}/{source_id}")
    return {
        "unique_id": f"{device}_{_id(what)}",
        "availability": [{"topic": f"{prefix}/availability"}],
        "device": {"identifiers": [device], "name": source_id, "manufacturer": "CenterStream"},
    }


def _topic(component: str, config: dict) -> str:
    return f"{ROOT}/{component}/{config['unique_id']}/config"


def _id(text: str) -> str:
    """Letters, digits, - and _ only; another text has another one."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", text)
    return plain if plain == text else f"{plain}_{sha256(text.encode()).hexdigest()[:8]}"
