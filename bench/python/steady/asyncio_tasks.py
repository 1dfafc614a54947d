"""asyncio: tasks, queues and events, without a socket."""
import asyncio
import sys

ROUNDS = 185


async def producer(queue, number):
    for n in range(30):
        await queue.put({"from": number, "n": n, "text": f"{number}/{n}"})
    await queue.put(None)


async def consumer(queue):
    total = 0
    while (item := await queue.get()) is not None:
        total += item["n"] + len(item["text"])
        if item["n"] % 10 == 0:
            await asyncio.sleep(0)
    return total


async def couple(number):
    queue = asyncio.Queue(8)
    _, total = await asyncio.gather(producer(queue, number), consumer(queue))
    return total


async def everything():
    return sum(await asyncio.gather(*(couple(n) for n in range(60))))


def work(i):
    return asyncio.run(everything()) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
