import multiprocessing as mp, time
def same(x): return x
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 10000
    pool = mp.Pool(4)
    pool.map(same, range(8), 1)
    start = time.perf_counter()
    pool.map(same, range(n), 1)
    print((time.perf_counter() - start) / n * 1e6)
    pool.terminate()
