import multiprocessing as mp, sys, time
def work(d, what, n, gate, done):
    len(d)
    gate.wait()
    start = time.perf_counter()
    if what == "set":
        for i in range(n): d[i & 127] = i
    elif what == "get":
        for i in range(n): d[i & 127]
    else:
        for i in range(n // 2):
            d[i & 127] = i
            d[i & 127]
    done.put(time.perf_counter() - start)
if __name__ == "__main__":
    mp.set_start_method("fork")
    what, clients = sys.argv[1], int(sys.argv[2])
    n = 5000 // clients
    m = mp.Manager()
    d = m.dict()
    for i in range(128): d[i] = i
    gate, done = mp.Barrier(clients), mp.Queue()
    all = [mp.Process(target=work, args=(d, what, n, gate, done)) for i in range(clients)]
    for p in all: p.start()
    longest = max(done.get() for i in range(clients))
    for p in all: p.join()
    print(longest / (n * clients) * 1e6)
    m.shutdown()
