import queue, sys, time
from multiprocessing.managers import BaseManager
class Server(BaseManager): pass
class Client(BaseManager): pass
q = queue.Queue()
def get_queue(): return q
if __name__ == "__main__":
    Server.register("get_queue", callable=get_queue)
    Client.register("get_queue")
    server = Server(address=("127.0.0.1", 0), authkey=b"key")
    server.start()
    def client():
        m = Client(address=server.address, authkey=b"key"); m.connect(); return m
    if sys.argv[1] == "connect":
        n = 20
        client()
        start = time.perf_counter()
        for i in range(n): client()
        print((time.perf_counter() - start) / n * 1e6)
    else:
        n = 3000
        q = client().get_queue()
        q.put(0); q.get()
        start = time.perf_counter()
        for i in range(n):
            q.put(i); q.get()
        print((time.perf_counter() - start) / (2 * n) * 1e6)
    server.shutdown()
