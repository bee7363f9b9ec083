import multiprocessing as mp, time
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 5000
    m = mp.Manager()
    d = m.dict()
    d["k"] = 0
    start = time.perf_counter()
    for i in range(n):
        d["k"] = i
        d["k"]
    print((time.perf_counter() - start) / n * 1e6)
    m.shutdown()
