import multiprocessing as mp, sys, time
def work(d, n):
    for i in range(n):
        d["k"] = i
        d["k"]
if __name__ == "__main__":
    mp.set_start_method("fork")
    clients = int(sys.argv[1])
    n = 5000 // clients
    m = mp.Manager()
    d = m.dict()
    work(d, 1)
    start = time.perf_counter()
    if clients == 1:
        work(d, n)
    else:
        all = [mp.Process(target=work, args=(d, n)) for i in range(clients)]
        for p in all: p.start()
        for p in all: p.join()
    print((time.perf_counter() - start) / (2 * n * clients) * 1e6)
    m.shutdown()
