/*
 * The host's end of the minimal agent: connects to a socket, asks for one thing, waits for the answer.
 *   client SOCKET x          run a program
 *   client SOCKET w COUNT    store so many bytes from standard input
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char buffer[256 * 1024];

static int all(int to, const char *bytes, size_t count)
{
	while (count > 0) {
		ssize_t written = write(to, bytes, count);
		if (written <= 0)
			return 0;
		bytes += written;
		count -= (size_t)written;
	}
	return 1;
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char answer = 1;
	int stream = socket(AF_UNIX, SOCK_STREAM, 0);

	if (argc < 3 || strlen(argv[1]) >= sizeof address.sun_path)
		return 2;
	strcpy(address.sun_path, argv[1]);
	if (connect(stream, (struct sockaddr *)&address, sizeof address) != 0)
		return 3;
	if (!all(stream, argv[2], 1))
		return 4;
	if (argv[2][0] == 'w') {
		uint64_t left = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
		unsigned char length[8];
		for (int i = 0; i < 8; i++)
			length[i] = (unsigned char)(left >> (56 - 8 * i));
		if (!all(stream, (char *)length, sizeof length))
			return 5;
		while (left > 0) {
			ssize_t count = read(0, buffer, left < sizeof buffer ? (size_t)left : sizeof buffer);
			if (count <= 0 || !all(stream, buffer, (size_t)count))
				return 6;
			left -= (uint64_t)count;
		}
	}
	if (read(stream, &answer, 1) != 1)
		return 7;
	/* The answer is the last thing on the stream: closing it now loses nothing. */
	return answer;
}
