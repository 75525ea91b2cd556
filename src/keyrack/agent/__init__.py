"""The program that runs on other people's hosts; imports the standard library, keyrack.ssh and keyrack.protocol."""
