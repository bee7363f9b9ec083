import multiprocessing as mp, sys, time
def same(x): return x
if __name__ == "__main__":
    mp.set_start_method("fork")
    way = sys.argv[1]
    n = 2000 if way == "apply" else 10000
    pool = mp.Pool(4)
    pool.map(same, range(8), 1)
    start = time.perf_counter()
    if way == "map": pool.map(same, range(n), 1)
    elif way == "imap":
        for x in pool.imap(same, range(n)): pass
    elif way == "apply_async":
        all = [pool.apply_async(same, [i]) for i in range(n)]
        for result in all: result.get()
    elif way == "apply":
        for i in range(n): pool.apply(same, [i])
    else:
        n = 10
        for i in range(n):
            p = mp.Pool(4); p.terminate(); p.join()
    print((time.perf_counter() - start) / n * 1e6)
    pool.terminate()
