/* ask SERVER NAME COUNT WINDOW: puts COUNT queries for the IPv4 address of NAME to SERVER, WINDOW of them under way at a time,
   and prints how many were answered in a second, and the median time of one in microseconds. Every reply must say that there
   is such a name. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *why) {
    perror(why);
    exit(1);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static unsigned char query[512];
static int length;

static void make_query(const char *name) {
    const unsigned char head[12] = {0, 0, 1, 0, 0, 1};
    memcpy(query, head, 12);
    length = 12;
    while (*name) {
        int n = strcspn(name, ".");
        query[length++] = n;
        memcpy(query + length, name, n);
        length += n;
        name += n + (name[n] == '.');
    }
    memcpy(query + length, "\0\0\1\0\1", 5);
    length += 5;
}

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    int count = atoi(argv[3]), window = atoi(argv[4]), sent = 0, answered = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53)};
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    make_query(argv[2]);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to))
        fail("connect");
    double *began = calloc(65536, sizeof *began), *took = calloc(count, sizeof *took), start = now();
    while (answered < count) {
        while (sent < count && sent - answered < window) {
            query[0] = sent >> 8;
            query[1] = sent;
            began[sent & 65535] = now();
            if (send(fd, query, length, 0) != length)
                fail("send");
            sent++;
        }
        unsigned char reply[512];
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, 5000) != 1)
            fail("no answer");
        if (recv(fd, reply, sizeof reply, 0) < 12)
            fail("recv");
        if (reply[3] & 15 || !reply[7]) {
            fprintf(stderr, "no such name\n");
            return 1;
        }
        took[answered++] = now() - began[reply[0] << 8 | reply[1]];
    }
    double seconds = now() - start;
    qsort(took, count, sizeof *took, compare);
    printf("%.0f %.1f\n", count / seconds, took[count / 2] * 1e6);
    return 0;
}
