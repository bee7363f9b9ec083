import multiprocessing as mp, sys, time
if __name__ == "__main__":
    mp.set_start_method("fork")
    both = sys.argv[1] == "both"
    n, total = 20, 0
    for i in range(n):
        start = time.perf_counter()
        m = mp.Manager()
        if both: m.shutdown()
        total += time.perf_counter() - start
        if not both: m.shutdown()
    print(total / n * 1e6)
