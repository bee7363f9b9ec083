import multiprocessing as mp, sys
def idle(ready, stop):
    ready.set(); stop.wait()
if __name__ == "__main__":
    mp.set_start_method("fork")
    ready, stop = mp.Event(), mp.Event()
    p = mp.Process(target=idle, args=(ready, stop)); p.start()
    ready.wait()
    print(p.pid, flush=True)
    sys.stdin.read()
    stop.set()
    p.join()
