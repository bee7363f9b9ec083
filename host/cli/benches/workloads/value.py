import multiprocessing as mp, time
def add(v, n, gate, done):
    lock = v.get_lock()
    gate.wait()
    start = time.perf_counter()
    for i in range(n):
        with lock: v.value += 1
    done.put([start, time.perf_counter()])
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 20000
    v, gate, done = mp.Value("i", 0), mp.Barrier(4), mp.Queue()
    all = [mp.Process(target=add, args=(v, n, gate, done)) for i in range(4)]
    for p in all: p.start()
    times = [done.get() for i in range(4)]
    for p in all: p.join()
    assert v.value == 4 * n
    print((max(t[1] for t in times) - min(t[0] for t in times)) / (4 * n) * 1e6)
