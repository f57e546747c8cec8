"""KVScope's two faces: the window and the command line. No rule about scales lives here."""
