import multiprocessing as mp, sys, time
def payload(kind):
    return {"int": 7, "text": "x" * 100, "blob": b"x" * 1048576}[kind]
def produce(q, kind, n):
    item = payload(kind)
    for i in range(n): q.put(item)
def consume(q, n, done):
    for i in range(n): q.get()
    done.put(time.perf_counter())
if __name__ == "__main__":
    mp.set_start_method("fork")
    kind, n, producers, consumers = sys.argv[1], int(sys.argv[2]) // 4, int(sys.argv[3]), int(sys.argv[4])
    q, done = mp.Queue(8 if kind == "blob" else 0), mp.Queue()
    start = time.perf_counter()
    for i in range(consumers): mp.Process(target=consume, args=(q, n // consumers, done)).start()
    for i in range(producers): mp.Process(target=produce, args=(q, kind, n // producers)).start()
    end = max(done.get() for i in range(consumers))
    print((end - start) / n * 1e6)
