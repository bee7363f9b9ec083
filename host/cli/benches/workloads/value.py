import multiprocessing as mp, time
def add(v, n):
    for i in range(n):
        with v.get_lock(): v.value += 1
if __name__ == "__main__":
    mp.set_start_method("fork")
    n = 20000
    v = mp.Value("i", 0)
    start = time.perf_counter()
    all = [mp.Process(target=add, args=(v, n)) for i in range(4)]
    for p in all: p.start()
    for p in all: p.join()
    print((time.perf_counter() - start) / (4 * n) * 1e6)
