"""The demo's other system, broker and shop, over real loopback connections."""

from __future__ import annotations

import asyncio
import threading

import aiohttp
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from inferloop.demos.effect_service import EffectService
from inferloop.demos.publisher import Outgoing, Publisher

pytest.importorskip("amqtt", reason="the embedded broker: pip install 'inferloop[demo]'")


async def post(service, order, key):
    async with aiohttp.ClientSession() as session:
        headers = {"Idempotency-Key": key} if key else {}
        async with session.post(service.url, json={"order": order, "total": 10.0}, headers=headers) as answer:
            return answer.status


async def test_a_known_key_is_answered_and_nothing_is_paid_again():
    async with EffectService("refunds", identity="order") as service:
        assert [await post(service, "o1", "a"), await post(service, "o1", "a")] == [201, 200]
        assert (service.counts.done, service.counts.repeats, service.counts.duplicates) == (1, 1, 0)


async def test_a_second_key_for_an_order_counts_as_a_duplicate():
    async with EffectService("refunds", identity="order") as service:
        await post(service, "o1", "a")
        await post(service, "o1", "b")
        assert service.counts.duplicates == 1


async def test_a_request_without_a_key_is_refused():
    async with EffectService("refunds", identity="order") as service:
        assert await post(service, "o1", "") == 400
        assert service.counts.done == 0


async def test_what_the_shop_sends_arrives_as_often_as_it_was_sent():
    from inferloop.demos.broker import LoopbackBroker

    got, subscribed = [], threading.Event()
    async with LoopbackBroker() as broker:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        client.on_message = lambda _client, _data, message: got.append(message.payload)
        client.on_connect = lambda *_: client.subscribe("shop/#", qos=1)
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect_async("127.0.0.1", broker.port)
        client.loop_start()
        assert await asyncio.to_thread(subscribed.wait, 60)
        async with Publisher(broker.url) as shop:
            sent = await shop.send([Outgoing("shop/a", b"1"), Outgoing("shop/b", b"2", times=2)], rate=1000)
        async with asyncio.timeout(60):
            while len(got) < 3:
                await asyncio.sleep(0.01)
        client.loop_stop()
        client.disconnect()
    assert sent == 3
    assert sorted(got) == [b"1", b"2", b"2"]
