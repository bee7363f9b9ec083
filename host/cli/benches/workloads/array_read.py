import multiprocessing as mp, sys, time
if __name__ == "__main__":
    n = 1000000
    a = mp.Array("i", range(n))
    start = time.perf_counter()
    if sys.argv[1] == "index":
        total = 0
        for i in range(n): total += a[i]
    else:
        all = a[:]
    print((time.perf_counter() - start) * 1e6)
