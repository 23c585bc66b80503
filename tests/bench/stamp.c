// What scripts/bench starts in dynos and in other sandboxes: prints when it runs (CLOCK_MONOTONIC, nanoseconds), or, with
// PORT set, accepts one connection on that port and ends soon after; with an argument too, it answers for ever. Built with:
// cc -O2 -static.
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void answer_for_ever(int listener) {
  static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
  char request[4096];
  signal(SIGPIPE, SIG_IGN);
  for (;;) {
    int client = accept(listener, NULL, NULL);
    if (client < 0) continue;
    if (read(client, request, sizeof request) > 0 && write(client, answer, sizeof answer - 1) < 0) perror("stamp");
    close(client);
  }
}

int main(int argc, char **argv) {
  (void)argv;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const char *port = getenv("PORT");
  if (!port) {
    char text[32];
    int length = snprintf(text, sizeof text, "%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    return write(1, text, length) != length;
  }
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 16)) {
    perror("stamp");
    return 1;
  }
  if (argc > 1) answer_for_ever(listener);
  if (accept(listener, NULL, NULL) < 0) return 1;
  // Long enough for whoever connected to have seen it before the program is gone.
  usleep(30000);
  return 0;
}
