import multiprocessing as mp, sys, time
def noop(): pass
if __name__ == "__main__":
    n = 40
    ctx = mp.get_context(sys.argv[1])
    p = ctx.Process(target=noop); p.start(); p.join()
    start = time.perf_counter()
    for i in range(n):
        p = ctx.Process(target=noop)
        p.start()
        p.join()
    print((time.perf_counter() - start) / n * 1e6)
