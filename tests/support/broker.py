"""A real MQTT broker of our own on a free loopback port: started, killed and restarted by the test."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

PORTS = range(20_000, 30_000)
"""Outside of what the kernel gives away by itself, so that nobody gets a port of ours while its broker is stopped."""


def free_port() -> int:
    """A port that was free a moment ago."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no port is free in {PORTS}")


class Mosquitto:
    """One mosquitto process that keeps its state in `folder`, with queues of any length."""

    def __init__(self, folder: Path, *, options: str = "") -> None:
        binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
        if binary is None:
            pytest.skip("mosquitto is not installed: apt-get install mosquitto")
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
            f"max_queued_messages 0\nmax_inflight_messages 0\nlog_dest file {folder}/mosquitto.log\nuser root\n{options}\n"
        )
        self._log = folder / "mosquitto.log"
        self._command = [binary, "-c", str(config)]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(f"mosquitto does not listen on {self.port}")

    def stop(self) -> None:
        """SIGTERM: it writes down what it holds, then ends."""
        if self._process is not None:
            for _ in range(120):
                self._process.terminate()  # one that comes while it starts is not heard
                try:
                    self._process.wait(0.5)
                    break
                except subprocess.TimeoutExpired:
                    continue
            self._process = None

    def said(self, words: str) -> None:
        """Wait for a line of its log; what clients send is there with `log_type all`."""
        deadline = time.monotonic() + 60
        while words not in self._log.read_text():
            assert time.monotonic() < deadline, f"mosquitto never said {words!r}"
            time.sleep(0.02)

    def publish(self, topic: str, payloads: list[bytes], *, qos: int = 1) -> None:
        """Publish all; returns when the broker confirmed every one."""
        publisher = Publisher(self.port)
        publisher.publish(topic, payloads, qos=qos)
        publisher.close()

    def subscribe_for(self, client_id: str, topic: str) -> None:
        """Make the persistent session of a client that has not come yet, so that the broker keeps messages for it."""
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        ready = []
        client.on_subscribe = lambda *_: ready.append(True)
        while not client.is_connected():
            time.sleep(0.01)
        client.subscribe(topic, 1)
        while not ready:
            time.sleep(0.01)
        client.disconnect()
        client.loop_stop()


class Publisher:
    """A connected publisher of QoS 1 messages."""

    def __init__(self, port: int) -> None:
        self._last: paho.MQTTMessageInfo | None = None
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(1000)
        self._client.max_queued_messages_set(0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def publish(self, topic: str, payloads: list[bytes], *, qos: int = 1) -> None:
        """Publish all; returns when the broker confirmed every one."""
        sent = [self._client.publish(topic, payload, qos=qos) for payload in payloads]
        for info in sent:
            info.wait_for_publish(60)
            assert info.is_published()

    def send(self, topic: str, payload: bytes) -> None:
        """Publish one without waiting for the broker."""
        self._last = self._client.publish(topic, payload, qos=1)

    def finish(self) -> None:
        """Wait until the broker has confirmed what was sent."""
        if self._last is not None:
            self._last.wait_for_publish(60)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()
