import multiprocessing as mp, sys, time
def payload(kind):
    return {"int": 7, "text": "x" * 100}.get(kind) or b"x" * (int(kind) * 1024)
def produce(q, kind, n, gate, done):
    item = payload(kind)
    gate.wait()
    start = time.perf_counter()
    if kind == "int":
        for i in range(n): q.put(i)
    else:
        for i in range(n): q.put(item)
    done.put([start, time.perf_counter()])
def consume(q, n, gate, done):
    gate.wait()
    start = time.perf_counter()
    for i in range(n): q.get()
    done.put([start, time.perf_counter()])
if __name__ == "__main__":
    mp.set_start_method("fork")
    kind, n, producers, consumers = sys.argv[1], int(sys.argv[2]) // 4, int(sys.argv[3]), int(sys.argv[4])
    q, done = mp.Queue(), mp.Queue()
    gate = mp.Barrier(producers + consumers)
    for i in range(consumers): mp.Process(target=consume, args=(q, n // consumers, gate, done)).start()
    for i in range(producers): mp.Process(target=produce, args=(q, kind, n // producers, gate, done)).start()
    times = [done.get() for i in range(producers + consumers)]
    units = n if kind in ("int", "text") else n * int(kind) / 1024
    print((max(t[1] for t in times) - min(t[0] for t in times)) / units * 1e6)
