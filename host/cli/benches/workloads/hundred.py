import multiprocessing as mp, sys, time
def noop(): pass
if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    rounds = 1 if sys.argv[1] == "spawn" else 3
    start = time.perf_counter()
    for round in range(rounds):
        all = [ctx.Process(target=noop) for i in range(100)]
        for p in all: p.start()
        for p in all: p.join()
    print((time.perf_counter() - start) / rounds * 1e6)
